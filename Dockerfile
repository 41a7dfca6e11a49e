# Untried: no container could be built where this was written. docker build -t sslbench . ; the data stay outside:
#   docker run --rm --gpus all -v "$PWD/data:/bench/data" -v "$PWD/results:/bench/results" sslbench run --grid small
FROM python:3.12-slim
COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY sslbench /src/sslbench
COPY benchmarks /src/benchmarks
RUN pip install --no-cache-dir -c /src/constraints.txt '/src[figures]' && rm -rf /src
WORKDIR /bench
ENTRYPOINT ["sslbench"]
CMD ["doctor"]
