"""A pairwise cover: every pair of values of two dimensions on at least one machine."""
import itertools

from machine import Machine

DIMENSIONS = {
    'gic': [3, 2],
    'level': ['el1', 'el2'],
    'smp': [4, 1, 2, 8],
    'mem': ['512M', '64M', '4G'],
    'cpu': ['cortex-a72', 'cortex-a53', 'max'],
    'profile': ['release', 'debug'],
}


def allowed(values):
    """Eight CPUs run in release only."""
    return not (values.get('smp') == 8 and values.get('profile') == 'debug')


def pairs_of(values):
    items = [(name, values[name]) for name in DIMENSIONS if name in values]
    return set(itertools.combinations(items, 2))


def pairwise():
    """Greedy: each machine takes the combination that covers most pairs not yet covered. The
    whole product is small, and the same list comes out each time."""
    names = list(DIMENSIONS)
    product = [dict(zip(names, values)) for values in itertools.product(*DIMENSIONS.values())]
    product = [values for values in product if allowed(values)]
    missing = set().union(*(pairs_of(values) for values in product))
    machines = []
    while missing:
        best = max(product, key=lambda values: len(pairs_of(values) & missing))
        missing -= pairs_of(best)
        machines.append(Machine(**best))
    return machines


# What every run boots; the first runs the user-space tests too.
QUICK = [
    Machine(gic=3, level='el1', smp=4, mem='512M', cpu='cortex-a72', profile='debug'),
    Machine(gic=2, level='el2', smp=4, mem='512M', cpu='max', profile='release'),
    Machine(gic=3, level='el1', smp=1, mem='64M', cpu='cortex-a53', profile='release'),
    Machine(board='raspi4b', profile='release'),
]

if __name__ == '__main__':
    for machine in pairwise():
        print(machine.name())
