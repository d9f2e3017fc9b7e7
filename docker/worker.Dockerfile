# A worker node with the example handlers. It holds no SQL and no database password.
# Build from the project's root: docker build -f docker/worker.Dockerfile .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p tasker-worker-node

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tasker
COPY --from=build /src/target/release/worker-node /usr/local/bin/
WORKDIR /srv/tasker
USER 10001
CMD ["worker-node"]
