"""What runs a stage and where: config, environment, container, lock, forks, preflight, digest of the code."""
