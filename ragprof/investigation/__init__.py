"""From analyses to findings: detectors, calibrated ranking, the Investigation."""
