"""A latency is shown with its origin and its error, or as unknown: the phrase never promises more than is known."""

import pytest

from edgepack.latency_estimate import HostLatency, LatencyEstimate

FIT = {"source": "figures", "fitted": "2026-01-31", "error": {"most_within": 30.0}}
USB = HostLatency("usb3", "USB 3", 3.4449)
SLOW = HostLatency("old", "an old host", 1234.5)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (LatencyEstimate("edgepack", (USB,), fit=FIT), "about 3.4 ms on USB 3 (estimate, most within 30 %)"),
        (
            LatencyEstimate("Vela 5.2.0", (USB, SLOW)),
            "about 3.4 ms on USB 3, 1234 ms on an old host (estimate of Vela 5.2.0, error unknown)",
        ),
        (
            LatencyEstimate("edgepack", (USB,), unfitted_ops=("TILE",), fit=FIT),
            "about 3.4 ms on USB 3 (estimate of unknown error: no published figure is of a network with TILE)",
        ),
        (
            LatencyEstimate("Vela 5.2.0", (USB,), host_ops=1),
            "at least about 3.4 ms on USB 3 for the part on the accelerator (estimate of Vela 5.2.0); "
            "the 1 op on the host's CPU adds an unknown time",
        ),
        (
            LatencyEstimate("edgepack", (USB,), host_ops=2, fit=FIT),
            "at least about 3.4 ms on USB 3 for the part on the accelerator (estimate); "
            "the 2 ops on the host's CPU add an unknown time",
        ),
    ],
)
def test_phrase_names_origin_and_error(estimate: LatencyEstimate, text: str) -> None:
    """Who estimates, how far off it may be, and what is not included."""
    assert estimate.text == text
    document = estimate.to_json()
    assert document["text"] == text
    assert document["kind"] == ("lower-bound" if estimate.host_ops else "estimate")
    assert ("error" in document) == bool(estimate.fit)
