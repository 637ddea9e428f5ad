"""Members that are pipelines: their stages, their tags, their progress.

A step that may turn items into missing rows ends a stage: the steps after it are fitted on, and applied to, the rows
that are left.
"""

from contextlib import contextmanager, nullcontext

from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import get_routing_for_object


def member_tags(member):
    """Return a member's tags; a pipeline accepts NaN if its first step does, which its own tags leave out."""
    tags = get_tags(member)
    if isinstance(member, Pipeline):
        tags.input_tags.allow_nan = member_tags(member.steps[0][1]).input_tags.allow_nan
    return tags


def _places(pipeline, prefix=""):
    """Yield (pipeline, position, name) of each step, with the steps of pipelines in a pipeline in place of them."""
    for position, (name, step) in enumerate(pipeline.steps):
        if isinstance(step, Pipeline):
            yield from _places(step, f"{prefix}{name}-")
        else:
            yield pipeline, position, prefix + name


def _may_lose_rows(step):
    """Tell whether a step may turn items into missing rows: an encoder with ``on_error="missing"`` or its like."""
    if getattr(step, "_may_lose_items", False):
        return True
    params = step.get_params() if hasattr(step, "get_params") else {}
    return any(key.rpartition("__")[2] == "on_error" and value == "missing" for key, value in params.items())


def split_stages(member):
    """Return the stages of a member, pipelines that each end with a step that may turn items into missing rows.

    The steps of pipelines inside a pipeline are its own. A member without such a step before its last is one stage.
    """
    if not isinstance(member, Pipeline):
        return [member]
    stages = [[]]
    for pipeline, position, name in _places(member):
        if stages[-1] and _may_lose_rows(stages[-1][-1][1]):
            stages.append([])
        stages[-1].append((name, pipeline.steps[position][1]))
    if len(stages) == 1:
        return [member]
    return [type(member)(steps, memory=member.memory, verbose=member.verbose) for steps in stages]


def join_stages(member, stages):
    """Put the fitted steps of stages back to their places in the member, and return it."""
    if len(stages) > 1:
        fitted = (step for stage in stages for _, step in stage.steps)
        for (pipeline, position, _), step in zip(list(_places(member)), fitted, strict=True):
            steps = list(pipeline.steps)
            steps[position] = (steps[position][0], step)
            pipeline.steps = steps
    return member


def consumed(stage, method, params):
    """Return those parameters of a member that a method of one of its stages asks for."""
    if not params:
        return params
    names = get_routing_for_object(stage).consumes(method, params.keys())
    return {name: params[name] for name in names}


def member_step(progress, task_name, member):
    """Return the step of a composite's fit in which a member is fitted, in one stage or in several."""
    n_stages = len(split_stages(member))
    return progress.subcontext(task_name=task_name, max_subtasks=n_stages if n_stages > 1 else 0)


@contextmanager
def propagated(step, owner, member):
    """Report the fit of a member to the owner's callbacks, and pass them on to a member that supports them."""
    with step.propagate_callback_context(member) if hasattr(member, "set_callbacks") else nullcontext():
        step.call_on_fit_task_begin(estimator=owner)
        yield
        step.call_on_fit_task_end(estimator=owner)


@contextmanager
def stage_steps(step, owner, stages):
    """Return the steps in which the stages of a member are fitted, for :func:`propagated`, and report their sum."""
    if len(stages) == 1:
        yield [step]
        return
    step.call_on_fit_task_begin(estimator=owner)
    yield [step.subcontext(task_name=", ".join(name for name, _ in stage.steps)) for stage in stages]
    step.call_on_fit_task_end(estimator=owner)
