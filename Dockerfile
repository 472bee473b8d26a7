# docker build -t vqgan . && docker run -v "$PWD:/work" vqgan train data=videos data.root=VIDEOS
# With --gpus all, build with --build-arg INDEX=https://download.pytorch.org/whl/cu130
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
ARG INDEX=https://download.pytorch.org/whl/cpu
COPY . /vqgan
RUN pip install --no-cache-dir --extra-index-url "$INDEX" -c /vqgan/constraints.txt /vqgan
WORKDIR /work
ENTRYPOINT ["vqgan"]
CMD ["--help"]
