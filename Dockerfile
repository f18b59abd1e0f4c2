# mrisem in a container, for CPUs or with --build-arg DEVICE=cuda for NVIDIA GPUs (docs/install.md).
# Not built where it was written: there was no Docker daemon. The commands inside are those of docs/install.md.
FROM python:3.11-slim
# cpu: torch from the index that TORCH_INDEX names (PyTorch's CPU index: the selector on pytorch.org shows it), without CUDA's
# libraries. Without TORCH_INDEX, and for cuda, the pinned default build with them.
ARG DEVICE=cpu
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1
RUN apt-get update && apt-get install -y --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
WORKDIR /mrisem
COPY . .
RUN if [ "$DEVICE" = cpu ] && [ -n "$TORCH_INDEX" ]; then make setup TORCH_INDEX="$TORCH_INDEX"; else make setup; fi
ENV MRISEM_CACHE=/cache MRISEM_OUTPUT=/runs NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
VOLUME ["/cache", "/runs"]
ENTRYPOINT ["/mrisem/.venv/bin/mrisem"]
CMD ["--help"]
