"""Where the rules run, and where a study's results go.

INPUTS:
    --use-singularity, the config's container: {image: …}, and images/image.json, which `make image` writes

GIVES:
    CONTAINER    the image of every rule: a SIF or a docker:// address with its digest; "host" without the flag
    RESULTS      results/{study} on the host, results/container/{study} in the image: the two never mix
"""

from workflow.tradeoff.run import container as study_container

IN_CONTAINER = any(method.name == "APPTAINER" for method in workflow.deployment_settings.deployment_method)

if IN_CONTAINER:
    RESULTS = f"results/container/{config['study']}"
    try:
        CONTAINER = study_container.image(config["container"]["image"] or None)
    except UserError as error:
        sys.exit(f"error: {error}")
else:
    RESULTS = f"results/{config['study']}"
    CONTAINER = "host"
