# Who watches and retrains: the training environment with Git. The project itself is mounted at /project.
#   docker build -f monitoring/worker.dockerfile -t tunectl-worker .
FROM python:3.13-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends git libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && git config --system --add safe.directory '*'
WORKDIR /tmp/tunectl
COPY requirements/run.txt requirements/run.txt
RUN pip install --no-cache-dir -r requirements/run.txt "psycopg[binary]>=3.2,<4"
COPY . .
RUN pip install --no-cache-dir --no-deps . && rm -rf /tmp/tunectl
# Whoever runs it is a number without a name; LOGNAME is what records say.
ENV HOME=/tmp LOGNAME=tunectl PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DO_NOT_TRACK=1 DVC_NO_ANALYTICS=1 HF_HUB_DISABLE_TELEMETRY=1
WORKDIR /project
ENTRYPOINT ["python", "-m", "tunectl"]
CMD ["--help"]
