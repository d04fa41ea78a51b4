"""Networks of leanresnet's configuration files in NumPy, written from the documentation alone: tensors with PyTorch's names, and a plain
forward pass in any precision, one product after another, that exports and engines are judged by."""

import numpy as np

STENCILS = {
    "cross4": (3, [(-1, 0), (0, -1), (0, 1), (1, 0)]),
    "cross5": (3, [(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)]),
    "box9": (3, [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]),
    "row3": (3, [(0, -1), (0, 0), (0, 1)]),
    "col3": (3, [(-1, 0), (0, 0), (1, 0)]),
    "box25": (5, [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]),
}

_ACCURATE = {"stencil": "box9", "norms": 2, "relu_after_sum": True}


def _preset(widths, blocks, **more):
    return {"stages": [{"width": w, "blocks": b} for w, b in zip(widths, blocks)], **more}


PRESETS = {
    "small": _preset((32, 64, 128), (3, 3, 3)),
    "base": _preset((64, 128, 256), (5, 5, 5)),
    "imagenet": _preset(
        (64, 128, 256, 512), (3, 4, 6, 3), input=[3, 224, 224], classes=1000, stem={"kernel": 7, "stride": 4}
    ),
    "cifar10-s": _preset((48, 96, 192), (4, 3, 2), block=_ACCURATE),
    "cifar10-m": _preset((64, 128, 256), (6, 5, 4), block=_ACCURATE),
    "cifar10-fast": _preset((32, 64, 128, 256), (1, 2, 2, 1), block=_ACCURATE),
}


def complete(network):
    """A `[network]` table with every key that it leaves out."""
    block = {
        "form": "residual",
        "operator": "lean",
        "stencil": "cross5",
        "group_size": 1,
        "norms": 1,
        "relu_after_sum": False,
        "scale": 1.0,
        **network.get("block", {}),
    }
    stages = []
    for stage in network["stages"]:
        own = {**block, **{key: value for key, value in stage.items() if key not in ("width", "blocks")}}
        own.setdefault("bias", own["norms"] == 0)
        if isinstance(own["stencil"], str):
            own["stencil"] = [own["stencil"]] * 2
        stages.append({"width": stage["width"], "blocks": stage["blocks"], "block": own})
    return {
        "input": network.get("input", [3, 32, 32]),
        "classes": network.get("classes", 10),
        "epsilon": np.float32(network.get("norm_epsilon", 1e-5)),
        "stages": stages,
        "stem": {"kernel": 3, "stride": 1, "norm": "batch", "bias": False, **network.get("stem", {})},
        "connection": {"form": "pool-conv", "norm": "batch", "bias": False, **network.get("connection", {})},
    }


class Network:
    """A network with random float32 tensors. Norms have statistics and factors of their own, so that folding them matters."""

    def __init__(self, table, seed):
        self.config = complete(table)
        self.random = np.random.default_rng(seed)
        self.tensors = {}
        self._draw()

    def _uniform(self, name, shape, centre, width):
        self.tensors[name] = (centre + width * self.random.uniform(-1, 1, shape)).astype(np.float32)

    def _conv(self, name, outputs, inputs, kernel, bias):
        self._uniform(f"{name}.weight", (outputs, inputs, kernel, kernel), 0, np.sqrt(6 / (inputs * kernel * kernel)))
        if bias:
            self._uniform(f"{name}.bias", (outputs,), 0, 0.3)

    def _norm(self, name, channels):
        self._uniform(f"{name}.weight", (channels,), 1, 0.5)
        self._uniform(f"{name}.bias", (channels,), 0, 0.5)
        self._uniform(f"{name}.running_mean", (channels,), 0, 0.5)
        self._uniform(f"{name}.running_var", (channels,), 1, 0.8)

    def _draw(self):
        config = self.config
        stem, connection, width = config["stem"], config["connection"], config["stages"][0]["width"]
        self._conv("stem.conv", width, config["input"][0], stem["kernel"], stem["bias"])
        if stem["norm"] == "batch":
            self._norm("stem.norm", width)
        for index, stage in enumerate(config["stages"]):
            if index:
                kernel = 3 if connection["form"] == "strided-conv" else 1
                self._conv(f"connections.{index - 1}.conv", stage["width"], width, kernel, connection["bias"])
                if connection["norm"] == "batch":
                    self._norm(f"connections.{index - 1}.norm", stage["width"])
            width = stage["width"]
            for number in range(stage["blocks"]):
                self._draw_block(f"stages.{index}.{number}", stage["block"], width)
        self._uniform("head.weight", (config["classes"], width), 0, np.sqrt(3 / width))
        self._uniform("head.bias", (config["classes"],), 0, 0.5)

    def _draw_block(self, name, block, width):
        for part in range(1, 3 if block["form"] == "residual" else 2):
            conv = f"{name}.conv{part}"
            if block["operator"] == "dense":
                self._conv(conv, width, width, 3, block["bias"])
                continue
            self._draw_stencil(f"{conv}.spatial.weight", block, part - 1, width)
            self._conv(f"{conv}.pointwise", width, width, 1, block["bias"])
        for part in range(1, block["norms"] + 1):
            self._norm(f"{name}.norm{part}", width)

    def _draw_stencil(self, name, block, index, width):
        group = block["group_size"]
        if block["operator"] == "shift":
            weight = np.zeros((width, 1, 3, 3), np.float32)
            weight[np.arange(width), 0, np.arange(width) % 9 // 3, np.arange(width) % 3] = 1
            self.tensors[name] = weight
            return
        side, taps = STENCILS[block["stencil"][index]]
        self._uniform(name, (width, group, side, side), 0, np.sqrt(3 / (group * len(taps))))
        mask = np.zeros((side, side), np.float32)
        for dy, dx in taps:
            mask[dy + side // 2, dx + side // 2] = 1
        self.tensors[name] *= mask

    def forward(self, images, dtype):
        """Logits of images, [n, channels, height, width], all of it in `dtype`."""
        tensors = {name: tensor.astype(dtype) for name, tensor in self.tensors.items()}
        config, x = self.config, images.astype(dtype)
        x = self._conv_norm_relu(tensors, "stem", x, config["stem"]["stride"])
        for index, stage in enumerate(config["stages"]):
            if index:
                x = self._connect(tensors, f"connections.{index - 1}", x)
            for number in range(stage["blocks"]):
                x = self._block(tensors, f"stages.{index}.{number}", stage["block"], x)
        pooled = np.zeros(x.shape[:2], dtype)
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                pooled += x[:, :, row, column]
        pooled /= dtype(x.shape[2] * x.shape[3])
        return convolve(pooled[:, :, None, None], tensors["head.weight"][:, :, None, None], tensors["head.bias"])[:, :, 0, 0]

    def _batch_norm(self, tensors, name, x):
        if f"{name}.weight" not in tensors:
            return x
        part = {key: tensors[f"{name}.{key}"][:, None, None] for key in ("weight", "bias", "running_mean", "running_var")}
        deviation = np.sqrt(part["running_var"] + x.dtype.type(self.config["epsilon"]))
        return (x - part["running_mean"]) / deviation * part["weight"] + part["bias"]

    def _conv_norm_relu(self, tensors, name, x, stride):
        x = convolve(x, tensors[f"{name}.conv.weight"], tensors.get(f"{name}.conv.bias"), stride=stride)
        return relu(self._batch_norm(tensors, f"{name}.norm", x))

    def _connect(self, tensors, name, x):
        form = self.config["connection"]["form"]
        if form == "pool-conv":
            x = pool(x)
        x = self._conv_norm_relu(tensors, name, x, 2 if form == "strided-conv" else 1)
        return pool(x) if form == "conv-pool" else x

    def _block(self, tensors, name, block, x):
        group = block["group_size"]
        y = self._block_conv(tensors, f"{name}.conv1", block, x, group)
        y = relu(self._batch_norm(tensors, f"{name}.norm1", y))
        if block["form"] == "residual":
            y = self._block_conv(tensors, f"{name}.conv2", block, y, group)
            scale = block["scale"]
        else:
            y = self._transposed(tensors, f"{name}.conv1", block, y, group)
            scale = -block["scale"]
        # The factor is a float32 number, as in model files.
        y = x + x.dtype.type(np.float32(scale)) * self._batch_norm(tensors, f"{name}.norm2", y)
        return relu(y) if block["relu_after_sum"] else y

    def _block_conv(self, tensors, name, block, x, group):
        if block["operator"] == "dense":
            return convolve(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))
        spatial = convolve(x, tensors[f"{name}.spatial.weight"], None, groups=x.shape[1] // group)
        y = x if block["operator"] == "lean" else spatial
        y = convolve(y, tensors[f"{name}.pointwise.weight"], tensors.get(f"{name}.pointwise.bias"))
        return y + spatial if block["operator"] == "lean" else y

    def _transposed(self, tensors, name, block, x, group):
        if block["operator"] == "dense":
            return convolve(x, transpose(tensors[f"{name}.weight"]), None)
        spatial = tensors[f"{name}.spatial.weight"]
        members = spatial.reshape(-1, group, *spatial.shape[1:])
        turned = np.stack([transpose(weight) for weight in members]).reshape(spatial.shape)
        y = convolve(x, transpose(tensors[f"{name}.pointwise.weight"]), None)
        return y + convolve(x, turned, None, groups=x.shape[1] // group)


def transpose(weight):
    """The kernel of the transposed convolution at stride 1."""
    return weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]


def relu(x):
    return np.where(x < 0, x.dtype.type(0), x)


def pool(x):
    """The mean over 2x2 pixels; an odd last row or column is left out."""
    n, c, h, w = x.shape
    x = x[:, :, : h // 2 * 2, : w // 2 * 2]
    return (x[:, :, ::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, ::2] + x[:, :, 1::2, 1::2]) * x.dtype.type(0.25)


def convolve(x, weight, bias, stride=1, groups=1):
    """A convolution with padding (side - 1) / 2. Each output is one chain of sums, tap by tap and channel by channel, rounded after every
    product and every sum: the naive evaluation."""
    n, channels, height, width = x.shape
    outputs, members, side, _ = weight.shape
    pad = (side - 1) // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = (height - 1) // stride + 1, (width - 1) // stride + 1
    y = np.zeros((n, groups, outputs // groups, rows, columns), x.dtype)
    if bias is not None:
        y += bias.reshape(groups, outputs // groups, 1, 1)
    for dy in range(side):
        for dx in range(side):
            tap = x[:, :, dy : dy + (rows - 1) * stride + 1 : stride, dx : dx + (columns - 1) * stride + 1 : stride]
            tap = tap.reshape(n, groups, members, 1, rows, columns)
            for member in range(members):
                factors = weight[:, member, dy, dx].reshape(groups, outputs // groups, 1, 1)
                if np.any(factors):
                    y += factors * tap[:, :, member]
    return y.reshape(n, outputs, rows, columns)
