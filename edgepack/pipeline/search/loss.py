"""How much a file lost: thresholds, an order, and words for it."""

from edgepack.runtime.metrics import Quality

#: Without --max-drop, `auto` leaves a scheme that loses more than this many percentage points.
AUTO_DROP = 1.0
#: Below this signal-to-noise ratio (dB) outputs without classes count as lost.
AUTO_SNR = 10.0


def acceptable(quality: Quality, limit: float) -> bool:
    """Return whether a loss is within a limit in percentage points, without classes within `AUTO_SNR`."""
    if quality.collapsed:
        return False
    if quality.drop is not None:
        return quality.drop <= limit
    return quality.snr_db is None or quality.snr_db >= AUTO_SNR


def loss(quality: Quality) -> float:
    """Return a number that grows with the loss, for comparing candidates of one model."""
    if quality.drop is not None:
        return quality.drop
    return 0.0 if quality.snr_db is None else -quality.snr_db


def loss_text(quality: Quality) -> str:
    """Return the loss in words."""
    if quality.top1 is not None and quality.top1_float is not None:
        lost = quality.top1_float - quality.top1
        points = "nothing" if lost <= 0 else f"{lost:.2f} points"
        return f"{points} of top-1 ({quality.top1_float:.2f} to {quality.top1:.2f})"
    if quality.agreement is not None:
        return f"{100 - quality.agreement:.2f} points of agreement with the float model"
    return "nothing" if quality.snr_db is None else f"signal down to {quality.snr_db:.1f} dB above the error"
