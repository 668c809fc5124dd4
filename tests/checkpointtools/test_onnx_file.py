"""Exported models compute what `load_model` computes, in another program."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pympi_train as pt
from pympi_train.checkpointtools import onnx_file
from pympi_train.checkpointtools.export import export_weights
from pympi_train.errors import DataError

ABSENT = "onnx and onnxruntime are not installed"
onnx = pytest.importorskip("onnx", reason=ABSENT)
onnxruntime = pytest.importorskip("onnxruntime", reason=ABSENT)


def exported(run):
    """Return a session of the exported run, and the remarks."""
    from mpi4py import MPI

    path = run.parent / "model.onnx"
    found = export_weights(str(run), str(path), MPI.COMM_SELF)
    return onnxruntime.InferenceSession(str(path)), found["remarks"]


def number(x, kind):
    return repr(float(2e4 + 1e3 * x[1] + kind))


def yes(x, kind):
    return "yes" if kind else "no"


CASES = {
    "softmax": (["model.kind=softmax"], {}),
    "integers": (["model.kind=softmax"], {"label": lambda x, kind: 7 * kind - 3}),
    "logistic": (["model.kind=logistic"], {"label": yes}),
    "no intercept": (["model.kind=logistic", "model.intercept=false"], {"label": yes}),
    "float64": (["model.dtype=float64"], {}),
    **{kind: ([f"model.activation={kind}"], {}) for kind in ("relu", "tanh", "gelu")},
    "deep": (["model.hidden=[5,4,3]", "data.standardize=false"], {}),
}
NUMBERS = {
    "linear": ["model.kind=linear"],
    "scaled": ["model.kind=linear", "data.standardize_target=true"],
    "mlp": ["model.task=regression", "data.standardize_target=true"],
}


@pytest.mark.parametrize("case", CASES)
def test_labels_and_probabilities(trained, case):
    overrides, how = CASES[case]
    run, x = trained(*overrides, **how)
    model, (session, remarks) = pt.load_model(run), exported(run)
    dtype = session.get_inputs()[0].type
    is_float = model.schema.preparation.scaling is None
    assert dtype == ("tensor(float)" if is_float else "tensor(double)")
    given = {"x": x.astype("float32" if is_float else "float64")}
    labels, probabilities = session.run(["label", "probabilities"], given)
    want = model.predict_proba(given["x"])
    assert probabilities.dtype == want.dtype
    rtol = 1e-9 if want.dtype == np.float64 else 2e-5
    assert_allclose(probabilities, want, rtol=rtol, atol=1e-7)
    sure = np.abs(np.diff(np.sort(want, axis=1)[:, -2:])[:, 0]) > 1e-4
    assert_array_equal(labels[sure], model.predict(given["x"])[sure])
    assert labels.dtype == (object if case != "integers" else np.int64)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == model.schema.classes.tolist()
    assert json.loads(facts["feature_names"]) == ["p", "q", "r"]
    assert remarks == [onnx_file.describe_input(model.schema)]
    assert remarks[0].startswith("input x: 3 features as in the files")


@pytest.mark.parametrize("case", NUMBERS)
def test_predictions(trained, case):
    run, x = trained(*NUMBERS[case], "optimizer.learning_rate=0.1", label=number)
    model, (session, _) = pt.load_model(run), exported(run)
    (found,) = session.run(None, {"x": x})
    assert found.shape == (len(x), 1)
    assert_allclose(found[:, 0], model.predict(x), rtol=1e-5)


def test_other_preparation_is_not_part_of_the_graph(trained):
    """The input is then what the model takes."""
    run, x = trained("data.clip=1.5")
    model, (session, remarks) = pt.load_model(run), exported(run)
    assert "features after the preparation that schema.json describes" in remarks[0]
    prepared = model.schema.preparation.apply(x).astype("float32")
    _, probabilities = session.run(None, {"x": prepared})
    assert_allclose(probabilities, model.predict_proba(x), rtol=2e-5, atol=1e-7)


def test_model_that_is_too_large(trained, monkeypatch):
    monkeypatch.setattr(onnx_file, "MOST_BYTES", 100)
    run, _ = trained()
    with pytest.raises(DataError, match="at most 2 GB: export to .safetensors"):
        exported(run)
    assert not (run.parent / "model.onnx").exists()
