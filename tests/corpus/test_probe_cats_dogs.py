"""The recorded activations of a network trained on Theano: the probe sees the flip that the port took out."""

import json
import os
from pathlib import Path

from wio.cli.main import main

CORPUS = Path(os.environ["WIO_CORPUS"])
FILE = f"keras-theano:{CORPUS / 'keras1_theano_cats_dogs.h5'}"
RECORDED = CORPUS / "keras1_theano_cats_dogs.npz"


def probed(capsys, file, tensor, given, recorded):
    line = ["probe", file, tensor, "--input", f"{RECORDED}:{given}", "--output", f"{RECORDED}:{recorded}", "--json"]
    code = main(line)
    return code, json.loads(capsys.readouterr().out)


def test_theano_convolves_and_the_port_correlates(tmp_path, capsys):
    ported = tmp_path / "ported.h5"
    assert main(["convert", FILE, "--into", "keras-tf", "-o", str(ported)]) == 0
    capsys.readouterr()

    theano = probed(capsys, FILE, "ConvLayer1/ConvLayer1_W", "input", "ConvLayer1")
    tensorflow = probed(capsys, f"keras-tf:{ported}", "ConvLayer1/kernel", "input", "ConvLayer1")

    for (code, found), operation, layout in [
        (theano, "convolution", "OIHW flipped"),
        (tensorflow, "cross-correlation", "HWIO"),
    ]:
        assert code == 0
        assert (found["operation"], found["layout"], found["agrees"]) == (operation, layout, True)
        assert found["residual"] < 1e-5
        assert all(each["residual"] > 1e-1 for each in found["hypotheses"][1:])


def test_the_rows_of_its_dense_layer(capsys):
    code, found = probed(capsys, FILE, "HiddenLayer/HiddenLayer_W", "PoolingLayer2", "HiddenLayer")
    assert code == 0
    assert found["layout"] == "(CHW)O C=8 H=8 W=8"
    assert all(each["residual"] > 1 for each in found["hypotheses"][1:])
