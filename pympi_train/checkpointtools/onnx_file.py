"""A trained model as ONNX [1]_: dense layers, with labels and probabilities.

References
----------
.. [1] https://onnx.ai/onnx/operators: the operators of opset 17.
"""

import json

import numpy as np

from pympi_train.backends.numpy.activations import GELU_1, GELU_3
from pympi_train.data.formats.rows import listed
from pympi_train.errors import DataError

OPSET, IR_VERSION = 17, 8  # of ONNX 1.12 (2022), which every runtime reads by now
MOST_BYTES = 2**31 - 2**20  # a file of protobuf is smaller than 2 GiB


def onnx_bytes(trained, source):
    """Return a trained model as the bytes of an ONNX file, and remarks on its inputs.

    Parameters
    ----------
    trained : TrainedModel
    source : str
        Where its weights come from, stored as a description.

    Returns
    -------
    (bytes, list of str)

    Raises
    ------
    DataError
        If the library onnx is not installed, or the model is too large or is a
        language model.

    Notes
    -----
    The input is "x", shape (rows, columns). If features are standardised at most, they
    are those of the files, float64, and the graph standardises them as the training
    did; otherwise they must be prepared before. Outputs of a classification are
    "label", as in the training data, and "probabilities", shape (rows, classes), of a
    regression "prediction", shape (rows, targets), in units of the targets.
    """
    if trained.schema.task == "language":
        raise DataError(
            f"{source}: a language model, which cannot be exported to .onnx: export "
            "its parameters to .safetensors or .npz"
        )
    if trained.block.nbytes > MOST_BYTES:
        raise DataError(
            f"{source}: {trained.block.nbytes / 1e9:.1f} GB of weights; an ONNX file "
            "holds at most 2 GB: export to .safetensors"
        )
    try:
        import onnx
    except ImportError as error:
        raise DataError(
            "export to .onnx needs the library onnx: pip install 'pympi-train[onnx]'"
        ) from error
    graph, remarks = _Graph(trained), [describe_input(trained.schema)]
    outputs = graph.layers(graph.prepared())
    is_classes = trained.schema.classes is not None
    given = graph.classes(outputs) if is_classes else graph.prediction(outputs)
    parts = graph.nodes, "model", [graph.input()], given, graph.held
    model = onnx.helper.make_model(
        onnx.helper.make_graph(*parts),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pympi_train",
        doc_string=f"{source}\n{remarks[0]}",
    )
    names = trained.schema.preparation.names(trained.schema.feature_names)
    facts = {} if names is None else {"feature_names": json.dumps(names)}
    if is_classes:
        facts["classes"] = json.dumps(trained.schema.classes.tolist())
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    return model.SerializeToString(), remarks


def is_scaled_only(preparation):
    """Return whether features are standardised at most, or taken as they are."""
    p = preparation
    others = p.encodings or p.dates or p.indicators
    return p.fill is None and p.clip is None and not others


def describe_input(schema):
    """Return a sentence that says what the input of the ONNX model must be."""
    prepared = schema.preparation
    names = prepared.names(schema.feature_names)
    of = "" if names is None else f": {listed(names)}"
    if is_scaled_only(prepared):
        how = " (the graph standardises them)" if prepared.scaling is not None else ""
        return f"input x: {prepared.n_columns} features as in the files{how}{of}"
    return (
        f"input x: {schema.n_features} features after the preparation that schema.json "
        "describes (missing values, categories, dates, scaling, clip), which is not "
        f"part of the graph{of}"
    )


class _Graph:
    """Nodes and constants of a graph; each method adds some, and returns their output.
    """

    def __init__(self, trained):
        import onnx

        self._helper, self._numpy = onnx.helper, onnx.numpy_helper
        self._schema, self._model = trained.schema, trained.model
        self._weights, self._dtype = trained.weights(), trained.model.layout.dtype
        self.nodes, self.held = [], []
        self._scaling = None
        if is_scaled_only(self._schema.preparation):
            self._scaling = self._schema.preparation.scaling

    def _type(self, dtype):
        return self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def input(self):
        """Return the input of the graph."""
        n = self._schema.n_features
        dtype = self._dtype if self._scaling is None else np.float64
        return self._value("x", dtype, n)

    def _value(self, name, dtype, *widths):
        kind = self._helper.TensorProto.STRING if dtype is str else self._type(dtype)
        return self._helper.make_tensor_value_info(name, kind, ["rows", *widths])

    def _node(self, kind, *inputs, out=None, **attributes):
        out = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(kind, inputs, [out], **attributes))
        return out

    def _constant(self, array, name=None):
        name = name or f"constant_{len(self.held)}"
        self.held.append(self._numpy.from_array(np.asarray(array, order="C"), name))
        return name

    def _cast(self, x, dtype):
        return self._node("Cast", x, to=self._type(dtype))

    def prepared(self):
        """Return the features as the model takes them."""
        if self._scaling is None:
            return "x"
        mean, scale = (
            self._constant(getattr(self._scaling, name), name)
            for name in ("mean", "scale")
        )
        x = self._node("Div", self._node("Sub", "x", mean), scale)
        return self._cast(x, self._dtype)

    def layers(self, x):
        """Return the outputs of the last layer."""
        for layer in self._model.layers:
            names = [tensor.name for tensor in layer.tensors]
            for name in names:
                self._constant(self._weights[name], name)
            x = self._node("Gemm", x, *names)
            if layer.activation == "gelu":
                x = self._gelu(x)
            elif layer.activation is not None:
                x = self._node({"relu": "Relu", "tanh": "Tanh"}[layer.activation], x)
        return x

    def _gelu(self, x):
        """Return x/2 (1 + tanh(GELU_1 x + GELU_3 x^3))."""
        c1, c3, one, half = (
            self._constant(np.array(c, self._dtype)) for c in (GELU_1, GELU_3, 1, 0.5)
        )
        cube = self._node("Mul", self._node("Mul", x, x), self._node("Mul", x, c3))
        angle = self._node("Add", self._node("Mul", x, c1), cube)
        tanh = self._node("Add", self._node("Tanh", angle), one)
        return self._node("Mul", self._node("Mul", x, half), tanh)

    def classes(self, z):
        """Add labels and probabilities; return the outputs of the graph."""
        classes = self._schema.classes
        if self._model.n_outputs == 1:
            second = self._node("Sigmoid", z)
            one = self._constant(np.array(1, self._dtype))
            first = self._node("Sub", one, second)
            self._node("Concat", first, second, out="probabilities", axis=1)
            zero = self._constant(np.array(0, self._dtype))
            index = self._cast(self._node("Greater", z, zero), np.int64)
            axis = self._constant(np.array([1], np.int64))
            index = self._node("Squeeze", index, axis)
        else:
            self._node("Softmax", z, out="probabilities", axis=1)
            index = self._node("ArgMax", z, axis=1, keepdims=0)
        is_text = classes.dtype.kind == "U"
        labels = self._constant(classes.astype(object) if is_text else classes)
        self._node("Gather", labels, index, out="label")
        return [
            self._value("label", str if is_text else classes.dtype),
            self._value("probabilities", self._dtype, len(classes)),
        ]

    def prediction(self, z):
        """Add predictions in units of the targets; return the outputs of the graph."""
        scaling = self._schema.target_scaling
        if scaling is None:
            self._node("Identity", z, out="prediction")
            dtype = self._dtype
        else:
            scale, mean = map(self._constant, (scaling.scale, scaling.mean))
            z = self._node("Mul", self._cast(z, np.float64), scale)
            self._node("Add", z, mean, out="prediction")
            dtype = np.float64
        return [self._value("prediction", dtype, self._model.n_outputs)]
