# An image that serves a model over HTTP. Weights are mounted, not copied in.
#
#   docker build -t video-llama .
#   docker run --rm --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 --gpus all \
#     -v /path/to/weights:/weights:ro -v /path/to/model.yaml:/config/model.yaml:ro \
#     video-llama serve --cfg-path /config/model.yaml --host 0.0.0.0
#
# PyPI's wheels of torch bring CUDA, which needs nothing but the driver and the NVIDIA container toolkit on the host. For a smaller
# image without CUDA, pass the address of PyTorch's CPU wheels: --build-arg TORCH_INDEX_URL=...

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX_URL=""
ARG EXTRAS="serve"
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /src
# The largest layer, which a change of the code does not repeat.
COPY constraints.txt ./
RUN pip install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} -c constraints.txt torch torchaudio torchvision
COPY LICENSE NOTICE README.md pyproject.toml schema.json ./
COPY eval_configs eval_configs
COPY prompts prompts
COPY train_configs train_configs
COPY video_llama video_llama
RUN pip install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} -c constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /tmp video-llama
COPY --from=build /opt/venv /opt/venv
# All that is written goes to /tmp: uploads while they are answered, and caches of libraries.
ENV PATH=/opt/venv/bin:$PATH \
    HF_HOME=/tmp/huggingface \
    HF_HUB_OFFLINE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
# `serve` finishes the answers that it has begun.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["video-llama"]
CMD ["serve", "--cfg-path", "toy", "--host", "0.0.0.0"]
