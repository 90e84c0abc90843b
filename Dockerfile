# Not built here: the machine this was written on has no container engine.
#
#   docker build --target edge  -t weedseg:edge  .   # predict on a CPU
#   docker build --target serve -t weedseg:serve .   # the service; deploy/compose.yaml starts it
#   docker build --target train -t weedseg:train .   # train and export
#
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" weedseg:edge predict photos --out out

FROM python:3.12-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 weedseg

FROM base AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM base AS edge
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install "$(ls /wheels/*.whl)[cpu]"
USER weedseg
WORKDIR /data
ENTRYPOINT ["weedseg"]
CMD ["--help"]

FROM base AS serve
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install "$(ls /wheels/*.whl)[cpu,serve,maps]"
RUN install -d -o weedseg -m 0700 /data
USER weedseg
WORKDIR /data
VOLUME /data
EXPOSE 8000
ENV WEEDSEG_DATA=/data
STOPSIGNAL SIGTERM
ENTRYPOINT ["weedseg"]
CMD ["serve"]

FROM base AS train
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install "$(ls /wheels/*.whl)[cpu,train]"
USER weedseg
WORKDIR /data
ENTRYPOINT ["weedseg"]
CMD ["--help"]
