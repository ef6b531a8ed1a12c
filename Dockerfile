# The image that every rule runs in with --use-singularity. `make image [FLAVOUR=cpu]` builds it; envs/README.md explains.
# It holds what envs/{flavour}.lock pins and no line of this repository: the code is mounted, so an edit changes no digest.
# python:3.11.16-slim-bookworm
ARG BASE_IMAGE=python@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
FROM ${BASE_IMAGE}

# cuda: CUDA libraries from the wheels of torch, the driver from the host by --nv. cpu: neither.
ARG FLAVOUR=cuda
# pip writes .pyc files that are checked by content instead of by time when this is set, and builders reset every
# file's time to it: two builds of the same inputs give the same image, and nothing is compiled again at start.
ARG SOURCE_DATE_EPOCH=1767225600

COPY envs/${FLAVOUR}.lock /opt/image/requirements.lock
COPY envs/image /opt/image
RUN --mount=type=bind,source=wheels,target=/wheels \
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} sh /opt/image/install.sh "${FLAVOUR}" /wheels

# Empty stands for unset: apptainer passes on what a user's shell exports, except what the image defines. So no package
# of the host can be imported in a rule.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONNOUSERSITE=1 \
    PYTHONPATH="" \
    PYTHONHOME="" \
    PYTHONUSERBASE="" \
    LANG=C.UTF-8
USER study

ARG SOURCE=
ARG VERSION=
ARG LOCK_DIGEST=
LABEL org.opencontainers.image.title="quantization-tradeoff" \
      org.opencontainers.image.description="Pinned Python packages for the quantization trade-off workflow" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      tradeoff.flavour="${FLAVOUR}" \
      tradeoff.lock.sha256="${LOCK_DIGEST}"
CMD ["python"]
