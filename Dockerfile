# The service as an image: the wheel is built from this checkout with its core compiled, and put beside packages whose
# versions and hashes are in deploy/requirements.txt. docs/deployment.md says how to build, pin, run and check it.
#
# For a build that can be repeated, name the base by digest as well:
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:... -t cra .
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# The compiler stays in this stage; its version comes with the base.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY deploy/requirements-build.txt deploy/requirements.txt deploy/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: -r deploy/requirements-build.txt
RUN python -m venv --without-pip /opt/cra \
    && /opt/build/bin/pip --python /opt/cra/bin/python install --require-hashes --only-binary :all: -r deploy/requirements.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY cra cra
COPY specs specs
COPY examples examples
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation -w /wheels . \
    && /opt/build/bin/pip --python /opt/cra/bin/python install --no-deps --no-index /wheels/*.whl \
    && /opt/build/bin/pip --python /opt/cra/bin/python check \
    && /opt/cra/bin/cra doctor --json >/dev/null

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="cra" \
      org.opencontainers.image.description="The governance layer under AI agents: an agent proposes, the runtime decides and records" \
      org.opencontainers.image.licenses="Apache-2.0"
# The numbers are fixed so that a volume, a Kubernetes securityContext and the image mean the same user.
RUN groupadd --system --gid 10001 cra \
    && useradd --system --uid 10001 --gid cra --no-create-home --home-dir /var/lib/cra --shell /usr/sbin/nologin cra \
    && install -d -o cra -g cra -m 0700 /var/lib/cra \
    && install -d -m 0755 /etc/cra
COPY --from=build /opt/cra /opt/cra
ENV PATH=/opt/cra/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CRA_HOST=0.0.0.0 \
    CRA_PORT=8420 \
    CRA_STORAGE=sqlite:////var/lib/cra/cra.db
WORKDIR /var/lib/cra
VOLUME /var/lib/cra
USER 10001:10001
EXPOSE 8420
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/opt/cra/bin/python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['CRA_PORT'] + '/v1/health/ready', timeout=4)"]
ENTRYPOINT ["/opt/cra/bin/cra"]
CMD ["serve"]
