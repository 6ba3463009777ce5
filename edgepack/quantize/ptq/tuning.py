"""Constants of the PTQ steps, each with the experiment or the source that it comes from."""

#: Positions that a layer's moments are measured at, over all samples: this many per input of a row, within limits. On
#: EfficientNet-Lite0 2,048, 4,096 and 8,192 positions give 24.6, 24.6 and 24.8 dB.
POSITIONS_PER_INPUT, FEWEST_POSITIONS, MOST_POSITIONS = 3, 2048, 4096

#: Positions that are multiplied at once, and the bytes from which fewer are. Few large products take a third of the
#: time of many small ones, but what waits is kept for every layer: without a limit 850 MB in EfficientNet-Lite0.
PRODUCT_POSITIONS, PRODUCT_BYTES = 1024, 1 << 20

#: Samples that moments are measured on.
MOMENT_SAMPLES = 48

#: Upper limit of the second moments in memory, bytes; layers beyond it get a pass of the float model of their own.
MOMENT_BYTES = 256 << 20

#: Widest block of a second moment. A wider layer is rounded in several blocks, without compensation between them.
WIDEST_BLOCK = 1536

#: Minimum added to the diagonal of a second moment before inversion, as a share of its mean (Frantar et al. 2022).
DAMPING = 0.01

#: Columns of a block of GPTQ's lazy updates (128 in Frantar et al. 2022, on a GPU; on a CPU the updates inside of a
#: block are what takes the time).
COLUMNS = 32

#: Multiply-accumulates of one pass over all samples up to which every sample is judged once. A pose detector beyond it
#: took 250 CPU-seconds at effort low with five folds.
FOLD_WORK = 4e9

#: Number of folds that steps are judged on where a trial costs less than `FOLD_WORK`, and the fewest. Two samples are
#: enough for folds: with 2 to 9 samples on three small nets, effort low gains 0 to 10 dB over min/max on unseen ones;
#: judged on the samples themselves it lost up to 3.
FEWEST_FOLDS, MOST_FOLDS = 2, 5

#: Where a trial costs more, one of this many samples is judged, and the others are learned from.
JUDGED_SHARE = 3

#: Results of steps that are kept in memory: at least this many, and as many as fit into this many bytes.
FEWEST_FITS, FIT_BYTES = 4, 256 << 20

#: Standard errors by which a gain must exceed zero to be kept: one in six steps without effect passes.
SIGNIFICANCE = 1.0

#: Standard errors by which a loss on the first folds must exceed zero for the others not to be measured, and the number
#: of those folds. Visual wake words at effort medium takes 260 instead of 292 CPU-seconds, with the same result.
HOPELESS, FEWEST_JUDGED_FOLDS = 2.0, 2

#: Held-out samples from which on errors are also compared without their mean: one has none left. What is chosen this
#: way is judged by whole errors in the end, so that a few samples cost time at most.
FEWEST_SHIFTED = 2

#: Smallest gain that is kept, dB: on a U-Net two that added up to 0.15 dB lost 0.9 dB on unseen samples.
LEAST_GAIN = 0.2

#: Power of the squared errors whose mean over the samples is compared: 1 is their sum, 0 the mean of their logarithms.
#: Of 172 pairs of settings on eight small nets, 0, 0.25, 0.5, 0.75 and 1 keep gains that add up to 29, 29, 28, 27 and
#: 24 dB on unseen samples, and losses of 9, 4, 2, 1 and 1 dB.
POWER = 0.5

#: Share of the samples that does not count for the standard error of a gain, and the number of samples from which one
#: does not.
OUTLIERS, FEWEST_WITH_OUTLIERS = 0.03, 10

#: Error below which a file counts as exact, as a share of the signal: -90 dB.
LEAST_ERROR = 1e-9

#: Gain (dB) over low below which a note says what the limit is, and SNR (dB) from which none is needed: there top-1 of
#: the models of scripts/bench quality is that of the float model within half a point.
NOTABLE_GAIN, GOOD_SNR = 3.0, 20.0

#: Factor on the observed range of scores and averages, which have one value per channel: a hundred samples are too few
#: to contain their extremes. On six models 1.15 and 1.2 did the same, 1.1 lost 0.3 dB more.
ROOM = 1.15

#: How often clipping error counts in the more careful of two ranges of least squared error: it has one sign and adds
#: up, where rounding averages out. Counted once, twice, 4, 16 and 64 times seven networks gain at least -2.5, -5.6,
#: 1.2, -0.8 and -1.2 dB over TFLiteConverter.
CLIPPING_WEIGHT = 4.0

#: Factor on the error of clipping the flat side of a function: it has one sign and adds up over a sum, unlike rounding.
#: 1, 2, 4 and 8 give a network with SiLU 31.3, 31.1, 31.6 and 31.5 dB (30.6 without), of which folds of the calibration
#: samples show 0.1, 0.4, 1.0 and 0.8 dB. Hard swish and RELU lose nothing by clipping.
ONE_SIDED = 4.0

#: Multiply-accumulates of one pass over all samples up to which effort low takes further trials: a second or two.
CHEAP_WORK = 2e10

#: Epsilon of a LayerNorm as a share of the smallest variance from which on L2_NORMALIZATION gets it as one more value.
#: Without it each result is too large by half of this share, -46 dB of those with the smallest variance.
LEAST_EPSILON = 0.01

#: Samples that gradients are computed on; gains converge with far fewer samples than ranges do.
GRADIENT_SAMPLES = 32

#: Bytes that the activations of one batch may take in TensorFlow, which keeps them and their gradients.
GRADIENT_BYTES = 128 << 20

#: Bounds at which the gain of clipping error is measured, as shares of a channel's largest value.
CLIPPING_SHARES = (0.5, 0.7, 0.9)

#: Lower limit of the gain of clipping error, for sides where the logits hardly depend on it.
LEAST_CLIPPING_GAIN = 0.05

#: Samples of bias correction on the integer file, and the most parts of the model that are corrected in turn. Layers
#: that are corrected together all make up for the same shift: six at a time lose 9 dB on EfficientNet-Lite0.
BIAS_SAMPLES, BIAS_PARTS = 32, 128

#: Rows of the regression of the last layers, over all samples, and the strengths of its penalty, as multiples of the
#: inputs' mean square about their mean. With 0.3, 1, 3, 10 and 30 fifteen networks gain 0.13, 0.31, 0.41, 0.41 and
#: 0.30 dB on unseen samples; visual wake words, with 256 inputs and two classes, loses 0.6 dB with 3 and none with 30.
REGRESSION_ROWS, RIDGES = 1024, (3.0, 30.0)

#: Layers from which a block of reconstruction ends at the next single activation, and those after which it ends anyway.
BLOCK_LAYERS, LONGEST_BLOCK = 2, 8

#: Optimization steps of a block: the first where one pass over all samples costs more than `CHEAP_WORK`. On
#: EfficientNet-Lite0 400 gain 0.7 dB and take 550 CPU-seconds.
FEWEST_STEPS, MOST_STEPS = 240, 800

#: Samples and batch size of a block, and the share of values that are not quantized in training.
BLOCK_SAMPLES, BATCH, DROP = 64, 8, 0.5

#: Learning rates: weights and biases in steps of their grid, ranges relative.
LEARNING_RATES = {"weights": 1e-3, "biases": 3e-3, "ranges": 5e-4}
