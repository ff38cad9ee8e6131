"""CHECKPOINT OUT: the tensors of a checkpoint through TensorFlow, written with safetensors."""

import sys

import tensorflow as tf
from safetensors.numpy import save_file

reader = tf.train.load_checkpoint(sys.argv[1])
names = [name for name in reader.get_variable_to_shape_map() if "AuxLogits" not in name and name != "global_step"]
save_file({name: reader.get_tensor(name) for name in names}, sys.argv[2])
