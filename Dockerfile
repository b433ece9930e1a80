# For those who have a builder: `docker build --target garboard .`, with --platform for another processor. Without one: `cargo xtask image`.
FROM docker.io/library/rust:1.95.0-alpine AS build
RUN apk add --no-cache build-base
WORKDIR /source
COPY . .
# Kernels for arm64 have pages of 4, 16 or 64 KiB; jemalloc serves those up to what it was built for.
RUN if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi; \
    cargo build --profile image --locked --package garboard --package garboard-operator
RUN install -d -m 0700 -o 65532 -g 65532 /data

FROM scratch AS garboard
COPY --from=build /source/target/image/garboard /garboard
COPY --from=build --chown=65532:65532 /data /var/lib/garboard
WORKDIR /var/lib/garboard
USER 65532:65532
ENTRYPOINT ["/garboard"]

FROM scratch AS garboard-operator
COPY --from=build /source/target/image/garboard-operator /garboard-operator
USER 65532:65532
ENTRYPOINT ["/garboard-operator"]
