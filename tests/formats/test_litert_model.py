from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest

from keras_sbp import export
from keras_sbp.formats.litert_model import LiteRTModel, op_names
from tests.remedies.test_remedies_of_extras import brings

pytestmark = pytest.mark.tensorflow


def test_running_by_name(convnet, tmp_path):
    path = export(convnet, tmp_path / "m.tflite").path
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LiteRTModel(path, num_threads=2)
    assert list(model.inputs) == ["image"]
    assert model.outputs["output_0"] == ((1, 3), np.float32)
    assert model.ops == op_names(path)
    image = np.ones((1, 8, 8, 1))
    np.testing.assert_array_equal(model(image)["output_0"], model({"image": image})["output_0"])


def test_wrong_inputs(convnet, tmp_path):
    model = LiteRTModel(export(convnet, tmp_path / "m.tflite").path)
    with pytest.raises(ValueError, match=r"inputs named \['image'\], received \['picture'\]"):
        model({"picture": np.ones((1, 8, 8, 1))})
    with pytest.raises(ValueError, match=r"expects shape \(1, 8, 8, 1\).*received \(2, 8, 8, 1\)"):
        model(np.ones((2, 8, 8, 1)))


def test_a_free_batch_axis_may_change_between_calls(convnet, tmp_path):
    model = LiteRTModel(export(convnet, tmp_path / "m.tflite", batch_size=None).path)
    for count in (3, 1, 4):
        assert model(np.ones((count, 8, 8, 1)))["output_0"].shape == (count, 3)


@pytest.mark.remedy("Install one: `pip install 'keras-sbp[tf]'`")
def test_missing_runtime(convnet, tmp_path, monkeypatch):
    path = export(convnet, tmp_path / "m.tflite").path
    with monkeypatch.context() as patch:
        for name in ("tensorflow", "ai_edge_litert"):
            patch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=r"pip install 'keras-sbp\[tf\]'"):
            LiteRTModel(path)
    assert brings("tf", "tensorflow")
    LiteRTModel(path)
