# Untried: no container could be built where this was written. The data stay outside:
#   docker build -t sslbench --build-arg COMMIT=$(git rev-parse --short=12 HEAD) .
#   docker run --rm --gpus all -v "$PWD/data:/bench/data" -v "$PWD/results:/bench/results" sslbench run --grid small
FROM python:3.12-slim
ARG COMMIT=
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE /src/
COPY sslbench /src/sslbench
COPY benchmarks /src/benchmarks
RUN if [ -n "$COMMIT" ]; then echo "$COMMIT" > /src/sslbench/_commit.txt; fi \
    && pip install --no-cache-dir -c /src/constraints.txt '/src[figures,parquet]' && rm -rf /src
WORKDIR /bench
ENTRYPOINT ["sslbench"]
CMD ["doctor"]
