"""Lowering of ops with a window over NHWC or NDHWC: convolutions, pools, resizing."""

from collections.abc import Sequence
from typing import Any

from edgepack.quantize.ptq.lowering.call import Call, Lowering, NotLoweredError, TfTensor
from edgepack.quantize.ptq.lowering.elementwise import square_root
from edgepack.quantize.ptq.lowering.lazy import tf


def _plus_bias(call: Call, result: TfTensor, position: int) -> TfTensor:
    """Return the activated sum of a folded result and the bias, with the samples' axis."""
    if call.has(position):
        result = tf.nn.bias_add(result, call.single(position))
    return call.activated(result)


def conv_2d(call: Call) -> Any:
    """Lower CONV_2D with weights (out, h, w, in / groups).

    TensorFlow's own kernels, without oneDNN's, have no gradient of a grouped or a dilated convolution on a CPU: groups
    are computed one by one, and a dilated kernel as the larger one with zeros between its values.
    """
    x, weights = call.folded(0), tf.transpose(call.single(1), [1, 2, 3, 0])
    groups = call.shape(0)[-1] // call.shape(1)[-1]
    dilations = (call.option("dilation_h", 1), call.option("dilation_w", 1))
    if max(dilations) > 1:
        weights = _dilated(weights, call.shape(1)[1:3], dilations)
    results = [
        tf.nn.conv2d(
            part,
            kernel,
            strides=[1, call.option("stride_h", 1), call.option("stride_w", 1), 1],
            padding=call.option("padding", "SAME"),
        )
        for part, kernel in zip(tf.split(x, groups, axis=3), tf.split(weights, groups, axis=3), strict=True)
    ]
    result = results[0] if groups == 1 else tf.concat(results, axis=3)
    return call.unfolded(_plus_bias(call, result, 2), call.shape(0)[0])


def _dilated(weights: TfTensor, size: Sequence[int], dilations: Sequence[int]) -> TfTensor:
    """Return a kernel (h, w, in, out) with zeros between its rows and columns."""
    (height, width), (down, across) = size, dilations
    rest = weights.shape[2:].as_list()
    spread = tf.reshape(weights, [height, 1, width, 1, *rest])
    spread = tf.pad(spread, [[0, 0], [0, down - 1], [0, 0], [0, across - 1], [0, 0], [0, 0]])
    spread = tf.reshape(spread, [height * down, width * across, *rest])
    return spread[: (height - 1) * down + 1, : (width - 1) * across + 1]


def depthwise_conv_2d(call: Call) -> Any:
    """Lower DEPTHWISE_CONV_2D with weights (1, h, w, in * multiplier)."""
    x, weights = call.folded(0), call.single(1)
    channels = call.shape(0)[-1]
    height, width, total = call.shape(1)[1:]
    strides = (call.option("stride_h", 1), call.option("stride_w", 1))
    dilations = (call.option("dilation_h", 1), call.option("dilation_w", 1))
    padding = call.option("padding", "SAME")
    if max(dilations) > 1 and max(strides) > 1:
        raise NotLoweredError("a depthwise convolution with strides and dilations")
    result = tf.nn.depthwise_conv2d(
        x,
        tf.reshape(weights, [height, width, channels, total // channels]),
        strides=[1, *strides, 1],
        padding=padding,
        dilations=dilations,
    )
    return call.unfolded(_plus_bias(call, result, 2), call.shape(0)[0])


def transpose_conv(call: Call) -> Any:
    """Lower TRANSPOSE_CONV: output shape, weights (out, h, w, in), input, bias."""
    shape, leading = call.ints(0), call.shape(2)[0]
    result = tf.nn.conv2d_transpose(
        call.folded(2),
        tf.transpose(call.single(1), [1, 2, 0, 3]),
        output_shape=[call.batch * leading, *shape[1:]],
        strides=[1, call.option("stride_h", 1), call.option("stride_w", 1), 1],
        padding=call.option("padding", "SAME"),
    )
    result.set_shape([None, *shape[1:]])
    return call.unfolded(_plus_bias(call, result, 3), leading)


def _spatial(call: Call, name: str) -> list[int]:
    return [int(call.option(f"{name}_{axis}", 1)) for axis in "dhw"]


def conv_3d(call: Call) -> Any:
    """Lower CONV_3D with weights (d, h, w, in, out)."""
    result = tf.nn.conv3d(
        call.folded(0),
        call.single(1),
        strides=[1, *_spatial(call, "stride"), 1],
        padding=call.option("padding", "SAME"),
        dilations=[1, *_spatial(call, "dilation"), 1],
    )
    return call.unfolded(_plus_bias(call, result, 2), call.shape(0)[0])


def conv_3d_transpose(call: Call) -> Any:
    """Lower CONV_3D_TRANSPOSE: output shape, weights (d, h, w, out, in), input, bias."""
    shape, leading = call.ints(0), call.shape(2)[0]
    if _spatial(call, "dilation") != [1, 1, 1]:
        raise NotLoweredError("a dilated CONV_3D_TRANSPOSE")
    result = tf.nn.conv3d_transpose(
        call.folded(2),
        call.single(1),
        output_shape=[call.batch * leading, *shape[1:]],
        strides=[1, *_spatial(call, "stride"), 1],
        padding=call.option("padding", "SAME"),
    )
    result.set_shape([None, *shape[1:]])
    return call.unfolded(_plus_bias(call, result, 3), leading)


def _pool(call: Call, x: TfTensor, kind: str) -> TfTensor:
    pool = tf.nn.max_pool2d if kind == "MAX" else tf.nn.avg_pool2d
    return pool(
        x,
        ksize=[call.option("filter_height", 1), call.option("filter_width", 1)],
        strides=[call.option("stride_h", 1), call.option("stride_w", 1)],
        padding=call.option("padding", "SAME"),
    )


def max_pool(call: Call) -> Any:
    """Lower MAX_POOL_2D."""
    return call.unfolded(call.activated(_pool(call, call.folded(0), "MAX")), call.shape(0)[0])


def average_pool(call: Call) -> Any:
    """Lower AVERAGE_POOL_2D; the mean leaves out what SAME padding adds, in both."""
    return call.unfolded(call.activated(_pool(call, call.folded(0), "AVERAGE")), call.shape(0)[0])


def l2_pool(call: Call) -> Any:
    """Lower L2_POOL_2D: the root of the mean of the squares."""
    mean = _pool(call, tf.square(call.folded(0)), "AVERAGE")
    return call.unfolded(call.activated(square_root(mean)), call.shape(0)[0])


def _resize(call: Call, resize: Any) -> Any:
    size = call.ints(1)
    result = resize(
        images=call.folded(0),
        size=size,
        align_corners=bool(call.option("align_corners", False)),
        half_pixel_centers=bool(call.option("half_pixel_centers", False)),
    )
    return call.unfolded(result, call.shape(0)[0])


def resize_bilinear(call: Call) -> Any:
    """Lower RESIZE_BILINEAR."""
    return _resize(call, tf.raw_ops.ResizeBilinear)


def resize_nearest(call: Call) -> Any:
    """Lower RESIZE_NEAREST_NEIGHBOR."""
    return _resize(call, tf.raw_ops.ResizeNearestNeighbor)


def local_response_normalization(call: Call) -> Any:
    """Lower LOCAL_RESPONSE_NORMALIZATION."""
    result = tf.nn.local_response_normalization(
        call.folded(0),
        depth_radius=call.option("radius", 5),
        bias=call.option("bias", 1.0),
        alpha=call.option("alpha", 1.0),
        beta=call.option("beta", 0.5),
    )
    return call.unfolded(result, call.shape(0)[0])


def space_to_depth(call: Call) -> Any:
    """Lower SPACE_TO_DEPTH."""
    return call.unfolded(tf.nn.space_to_depth(call.folded(0), call.option("block_size", 1)), call.shape(0)[0])


def depth_to_space(call: Call) -> Any:
    """Lower DEPTH_TO_SPACE."""
    return call.unfolded(tf.nn.depth_to_space(call.folded(0), call.option("block_size", 1)), call.shape(0)[0])


OPS: dict[str, Lowering] = {
    "AVERAGE_POOL_2D": average_pool,
    "CONV_2D": conv_2d,
    "CONV_3D": conv_3d,
    "CONV_3D_TRANSPOSE": conv_3d_transpose,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "DEPTH_TO_SPACE": depth_to_space,
    "L2_POOL_2D": l2_pool,
    "LOCAL_RESPONSE_NORMALIZATION": local_response_normalization,
    "MAX_POOL_2D": max_pool,
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "SPACE_TO_DEPTH": space_to_depth,
    "TRANSPOSE_CONV": transpose_conv,
}
