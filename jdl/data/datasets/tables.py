"""The small tables of scikit-learn that `jdl.data.load` knows by name."""

from typing import Any

from jdl.core.errors import require_package
from jdl.data.datasets.build import classes_of, finish, prepare, three_parts
from jdl.data.prepare.scale import standardise
from jdl.data.records import Data

TABLES = {
    "iris": ("load_iris", "R. A. Fisher, 1936; UCI Machine Learning Repository"),
    "wine": ("load_wine", "S. Aeberhard and M. Forina, 1992; UCI Machine Learning Repository"),
    "breast_cancer": ("load_breast_cancer", "W. Wolberg et al., 1995; UCI, diagnostic Wisconsin"),
    "diabetes": ("load_diabetes", "B. Efron et al., Least Angle Regression, 2004"),
}


def table_set(name: str, seed: int) -> Data:
    """One of `TABLES`, standardized."""
    what = f'data set "{name}"'
    datasets = require_package("sklearn.datasets", "scikit-learn", what, '"jdl-jax[datasets]"')
    function, source = TABLES[name]
    # By default diabetes comes scaled by statistics of all examples, including the test split.
    options: dict[str, Any] = {"scaled": False} if name == "diabetes" else {}
    table = getattr(datasets, function)(**options)
    whole = prepare({"x": table.data, "y": table.target}, name, notice=False)
    about: dict[str, Any] = {
        "name": name,
        "source": source,
        "licence": "CC BY 4.0 (UCI)" if "UCI" in source else "published with the paper",
        "features": [str(feature) for feature in table.feature_names],
        "seed": seed,
    }
    if name != "diabetes":
        about["labels"] = [str(label) for label in table.target_names]
    return finish(three_parts(whole, seed), standardise, about, classes_of(whole))
