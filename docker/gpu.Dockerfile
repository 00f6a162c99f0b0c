# Plumbob on CUDA: docker build --file docker/gpu.Dockerfile --tag plumbob:gpu . (the packages bring CUDA, the node its driver)
FROM python:3.11-slim-bookworm

# make installs; Triton calls the compiler; tini reaps processes; KubeRay's probes call wget; vLLM links to libnuma.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ libnuma1 make tini wget && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1
WORKDIR /opt/plumbob
COPY . .
# The builder has no GPU to choose a torch by, so it is PyPI's, which has CUDA.
RUN make gpu-install TORCH_BACKEND=

# The user has neither a name nor a home there, and a cluster may give another: files go to /tmp and to volumes.
ENV PATH=/opt/plumbob/.venv/bin:$PATH HOME=/tmp USER=plumbob
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /tmp
ENTRYPOINT ["tini", "--"]
CMD ["plumbob", "--help"]
