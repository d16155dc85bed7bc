"""Estimators that take little time, and what is looked for in their figures."""

CHEAP = ["kde", "knn", "probe", "quantized8"]
GIVEN = {
    "kde": ["I_XT", "I_TY", "I_XT_lower", "I_TY_lower", "noise_variance"],
    "knn": ["I_TY"],
    "probe": ["I_TY", "accuracy"],
    "quantized8": ["I_XT", "I_TY"],
}
LAYERS = ["hidden", "out"]
NO_UNIT = ("accuracy", "noise_variance")

# Lightning logs the figures of an epoch at the epoch's last step, and counts steps from 0.
STEPS = [0, 5, 11, 17]


def told(caught, words):
    return [str(warning.message) for warning in caught if words in str(warning.message)]
