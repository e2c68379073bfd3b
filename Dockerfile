# olmes-suite on a machine with NVIDIA GPUs: vLLM, training and the sandbox.
#
#   docker build -t olmes-suite .
#   docker run --rm --gpus all --ipc=host -v "$PWD":/work -v "$HOME/.cache/huggingface":/cache/huggingface \
#       olmes-suite eval --backend vllm --model /work/checkpoint --suite dev
#
# The wheels of torch bring CUDA's libraries; of NVIDIA's software the host needs the driver and its container toolkit.
FROM python:3.12-slim

# Triton and vLLM compile kernels at run time. bubblewrap is the stronger of the two sandboxes; where the container may
# not create namespaces, the other one, Landlock, takes its place.
RUN apt-get update -q \
    && apt-get install -q -y --no-install-recommends build-essential bubblewrap git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/olmes-suite
COPY . .
# vLLM's release decides on torch; constraints.txt holds the rest to what is tested together.
ARG EXTRAS=eval,vllm,train,curate,code,ood
RUN pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]" \
    && python -m nltk.downloader -d /usr/share/nltk_data punkt_tab stopwords averaged_perceptron_tagger_eng

ENV HF_HOME=/cache/huggingface OLMES_CACHE=/cache/olmes
WORKDIR /work
ENTRYPOINT ["olmes"]
CMD ["doctor"]
