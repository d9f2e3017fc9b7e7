# An orchestrator node, with the `tasker` command beside it: to migrate, and to talk to a node whose HTTP
# listens on its own loopback. Build from the project's root: docker build -f docker/orchestrator.Dockerfile .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# Queries are checked against the committed store/.sqlx, not against a database.
ENV SQLX_OFFLINE=true
RUN cargo build --release --locked -p tasker-orchestrator-node -p tasker

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tasker
COPY --from=build /src/target/release/orchestrator-node /src/target/release/tasker /usr/local/bin/
COPY examples/templates /srv/tasker/examples/templates
WORKDIR /srv/tasker
USER 10001
CMD ["orchestrator-node"]
