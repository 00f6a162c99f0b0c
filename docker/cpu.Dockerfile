# Plumbob on CPUs: docker build --file docker/cpu.Dockerfile --tag plumbob:cpu .
FROM python:3.11-slim-bookworm

# make installs; g++ is the README's compiler; tini reaps processes; KubeRay's probes call wget; vLLM links to libnuma.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ libnuma1 make tini wget && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1
WORKDIR /opt/plumbob
COPY . .
RUN make install

# The user has neither a name nor a home there, and a cluster may give another: files go to /tmp and to volumes.
ENV PATH=/opt/plumbob/.venv/bin:$PATH HOME=/tmp USER=plumbob
USER 1000:1000
WORKDIR /tmp
ENTRYPOINT ["tini", "--"]
CMD ["plumbob", "--help"]
