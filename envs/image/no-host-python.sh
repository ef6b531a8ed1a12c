# The packages of this image are the only ones that a rule sees.
unset PYTHONPATH PYTHONHOME PYTHONUSERBASE PYTHONSTARTUP VIRTUAL_ENV
export PYTHONNOUSERSITE=1
