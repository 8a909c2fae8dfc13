"""A table of whole numbers in proportion to the sums of its rows and columns."""

import numpy as np


def proportional_table(rows: np.ndarray, columns: np.ndarray, order: np.ndarray) -> np.ndarray:
    r"""Whole numbers (rows, columns) with these sums, each less than one from $r_i c_j / n$.

    `rows` and `columns` have the same sum n. Each number is its proportion, rounded down or up, and
    such a table always exists. Of these, one is chosen in which as many rows as possible are above
    zero in the first column. `order`, a permutation of the rows, decides between equally good ones.

    >>> proportional_table(np.array([5, 1]), np.array([4, 2]), np.array([0, 1])).tolist()
    [[3, 2], [1, 0]]

    Causey, Cox and Ernst 1985, "Applications of transportation theory to statistical problems".
    """
    rows = rows[order]
    exact, total = rows[:, None] * columns[None], rows.sum()
    down, is_fraction = exact // total, exact % total > 0
    lacking = columns - down.sum(0)
    up = np.zeros(down.shape, bool)
    for row, extra in enumerate(rows - down.sum(1)):
        # In the columns that lack most. Some then have too many, which is corrected below.
        places = np.argsort(-np.where(is_fraction[row], lacking, -total), kind="stable")[:extra]
        up[row, places] = True
        lacking[places] -= 1
    while (lacking < 0).any():
        source = int(np.argmin(lacking))
        target = _pass_on(up, up, is_fraction, source, np.flatnonzero(lacking > 0))
        lacking[source] += 1
        lacking[target] -= 1
    is_rare = is_fraction[:, 0] & (down[:, 0] == 0)
    for row in np.flatnonzero(is_rare & ~up[:, 0]).tolist():
        _move_to_first(up, is_fraction, row, is_rare)
    return (down + up)[np.argsort(order)]


def _move_to_first(up: np.ndarray, is_fraction: np.ndarray, row: int, is_rare: np.ndarray) -> None:
    """Round a row up in the first column instead of another, if rows not rare can make room."""
    others = is_fraction.copy()
    others[row] = False
    movable = up & others
    movable[is_rare, 0] = False
    target = _pass_on(up, movable, others, 0, np.flatnonzero(up[row]))
    if target >= 0:
        up[row, 0], up[row, target] = True, False


def _pass_on(
    up: np.ndarray, movable: np.ndarray, may_grow: np.ndarray, source: int, targets: np.ndarray
) -> int:
    """Move one from column `source` to one of `targets` by the shortest chain of moves within rows.

    Returns that target; -1, and nothing is moved, if none can be reached.
    """
    free = may_grow & ~up
    came_from: dict[int, tuple[int, int]] = {}
    queue = [source]
    for column in queue:
        if column in targets:
            target = column
            while column != source:
                before, row = came_from[column]
                up[row, before], up[row, column] = False, True
                column = before
            return target
        for other in range(up.shape[1]):
            makes_room = movable[:, column] & free[:, other]
            if other != source and other not in came_from and makes_room.any():
                came_from[other] = column, int(np.argmax(makes_room))
                queue.append(other)
    return -1
