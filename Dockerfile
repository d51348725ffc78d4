# An image with the package, Detectron2 and the commands; not built here, for want of a Docker daemon.
#   docker build -t swinv2 .
#   docker run --gpus all --shm-size 16g --user "$(id -u)" -v "$PWD":/data swinv2 info
# PyTorch brings its own CUDA libraries: the host needs NVIDIA's driver and container toolkit alone.
FROM python:3.11-slim

# g++ compiles Detectron2; OpenCV needs the libraries.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/swinv2
# PyTorch is the largest layer: it is built again only when the versions change.
COPY constraints.txt .
RUN pip install --no-cache-dir -c constraints.txt setuptools wheel torch torchvision
COPY . .
RUN pip install --no-cache-dir -c constraints.txt --no-build-isolation ".[d2,export,images]" \
    && python tools/install_detectron2.py

# Datasets, configs and output are below the folder that is mounted here, by any user.
ENV HOME=/tmp
WORKDIR /data
ENTRYPOINT ["swinv2"]
CMD ["--help"]
