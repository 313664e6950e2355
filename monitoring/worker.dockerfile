# Who watches and retrains: the training environment with Git. The project itself is mounted at /project.
#   docker build -f monitoring/worker.dockerfile -t tunectl-worker .
# In tunectl's own checkout it is built from that; in a project of yours from the package, or from what TUNECTL names:
#   --build-arg TUNECTL="tunectl-lm[all,postgres] @ https://..."
FROM python:3.13-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends git libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && git config --system --add safe.directory '*'
WORKDIR /tmp/tunectl
# A lock file is there in the checkout only; what is always there keeps COPY from failing without it.
COPY monitoring/worker.dockerfile requirements/install.p[y] requirements/torch.tx[t] requirements/run.tx[t] requirements/postgres.tx[t] lock/
RUN if [ -f lock/run.txt ]; then PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 python lock/install.py torch.txt run.txt postgres.txt; fi
COPY . .
ARG TUNECTL="tunectl-lm[all,postgres]"
RUN if [ -f lock/run.txt ]; then pip install --no-cache-dir --no-deps .; else pip install --no-cache-dir "$TUNECTL"; fi \
 && rm -rf /tmp/tunectl
# Whoever runs it is a number without a name; LOGNAME is what records say.
ENV HOME=/tmp LOGNAME=tunectl PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DO_NOT_TRACK=1 DVC_NO_ANALYTICS=1 HF_HUB_DISABLE_TELEMETRY=1
WORKDIR /project
ENTRYPOINT ["python", "-m", "tunectl"]
CMD ["--help"]
