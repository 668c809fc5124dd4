"""Errors to plant outside the GPU path: a table for ``mutate.py``.

A comment states what an error needs to give a wrong result: a number of ranks, or
unusual rows, weights or types.
"""

# File, text that occurs once in it, replacement, tests that must fail.
COMM = [
    (  # From 3 ranks on: slices after the first may have other sizes.
        "pympi_train/comm/collectives.py",
        "starts = np.cumsum(pieces) - pieces",
        "starts = np.arange(len(pieces)) * pieces[0]",
        ["tests/comm/test_collectives.py"],
    ),
    (  # From 3 ranks on.
        "pympi_train/comm/sums/compress.py",
        "self._wire.encode(total, own, self._own_residual[chunk.own_residual])",
        "self._wire.encode(total, own)",
        ["tests/comm/sums/test_wires.py"],
    ),
    (
        "pympi_train/comm/sums/powersgd.py",
        "own.append(q.copy())",
        "own.append(q)",
        ["tests/comm/sums/test_powersgd.py"],
    ),
    (  # With 8 groups, on 3 ranks and not on 2 or 4: a rank has two nodes.
        "pympi_train/comm/sums/tree.py",
        "(theirs, (rows[:-1] + turn) * n_own)",
        "(theirs, rows[:-1] * n_own)",
        ["tests/comm/sums/test_tree.py"],
    ),
    (  # A node whose first group has no rows.
        "pympi_train/comm/sums/tree.py",
        "np.logical_or.reduceat(present, self._starts).tolist()",
        "present[self._starts].tolist()",
        ["tests/comm/sums/test_tree.py"],
    ),
    (  # From 4 ranks on: two nodes with two ranks each.
        "pympi_train/comm/mesh.py",
        "number = self.node.rank if owner else MPI.UNDEFINED",
        "number = 0 if owner else MPI.UNDEFINED",
        ["tests/parallel/test_hierarchical.py"],
    ),
    (
        "pympi_train/comm/checks.py",
        "raise agreed_within(comm, retold(kind, prefix, message, root, text))",
        "raise retold(kind, prefix, message, root, text)",
        ["tests/comm/test_checks.py"],
    ),
    (  # All workers fail together; the servers do not know.
        "pympi_train/comm/roles.py",
        "return is_agreed(error, self.comm)",
        "return is_agreed(error, self.everyone)",
        ["tests/comm/test_roles.py"],
    ),
    (
        "pympi_train/comm/watch/watchdog.py",
        "late = members & (table[:, j.WAITING] == 0)",
        "late = table[:, j.WAITING] == 0",
        ["tests/comm/watch/test_watchdog.py"],
    ),
    (  # From 4 ranks on: two communicators of two ranks at once.
        "pympi_train/comm/watch/communicator.py",
        "journal.open_channel(channel, 1 + self._name_of(journal))",
        "journal.open_channel(channel, 1)",
        ["tests/comm/watch/test_guard.py"],
    ),
    (  # From 3 ranks on, but not on 4: some ranks use other channels.
        "pympi_train/comm/watch/communicator.py",
        "used = self._combined(self._journal.used, MPI.BOR)",
        "used = self._combined(self._journal.used, MPI.BAND)",
        ["tests/comm/watch/test_guard.py"],
    ),
    (  # Calls of the guard itself are told as the places of a rank's calls.
        "pympi_train/comm/watch/sites.py",
        '("guard.py", "communicator.py", "recording.py", "sites.py")',
        '("guard.py", "communicator.py", "sites.py")',
        ["tests/comm/watch/test_guard.py"],
    ),
    (  # On 2 and 4 ranks: equally many ranks have each value.
        "pympi_train/comm/watch/drift.py",
        "Counter(values).most_common(1)[0][0]",
        "max(set(values), key=values.count)",
        ["tests/comm/watch/test_drift.py"],
    ),
    (
        "pympi_train/comm/exchange.py",
        "            self._ranks.free()\n",
        "            pass\n",
        ["tests/comm/test_exchange.py"],
    ),
    (
        "pympi_train/comm/watch/abort.py",
        "len(ranks) == world.size and all_leave(world)",
        "len(ranks) == world.size",
        ["tests/comm/watch/test_abort.py"],
    ),
    (  # One buffer where two are needed.
        "pympi_train/comm/node_sums.py",
        "n_bytes, places = views[turn]",
        "n_bytes, places = views[0]",
        ["tests/comm/test_node_sums.py"],
    ),
    (  # The last rank is not waited for.
        "pympi_train/comm/node_sums.py",
        "            if flags[other] < count:\n",
        "            if flags[other] < count - 1:\n",
        ["tests/comm/test_node_sums.py"],
    ),
    (
        "pympi_train/comm/node_sums.py",
        "    if not comm.allreduce(has_room, op=MPI.LAND):\n",
        "    if not has_room:\n",
        ["tests/comm/test_node_sums.py"],
    ),
]
PARALLEL = [
    (  # No barrier before reading the other ranks' gradients.
        "pympi_train/parallel/hierarchical.py",
        'over all nodes. Collective."""\n        self._sync(self._shared_grads)\n',
        'over all nodes. Collective."""\n        self._shared_grads.fence()\n',
        ["tests/parallel/test_hierarchical.py"],
    ),
    (
        "pympi_train/parallel/sharded/strategy.py",
        "norm = math.sqrt(self._total(square))",
        "norm = math.sqrt(square)",
        ["tests/parallel/sharded/test_sharded.py"],
    ),
    (  # Ranks with unequal numbers of micro-batches.
        "pympi_train/parallel/sharded/strategy.py",
        '(most,) = collectives.reduced(self.comm, [n_batches], op="MAX")',
        '(most,) = collectives.reduced(self.comm, [n_batches], op="MIN")',
        ["tests/parallel/sharded/test_sharded.py"],
    ),
    (
        "pympi_train/parallel/sharded/params.py",
        'the slices were updated."""\n        self._views.layer = None\n',
        'the slices were updated."""\n',
        ["tests/parallel/sharded/test_sharded.py"],
    ),
    (
        "pympi_train/parallel/local.py",
        "self._combine(self._weight / weight)",
        "self._combine(1.0 / self.comm.size)",
        ["tests/parallel/test_local.py"],
    ),
    (
        "pympi_train/parallel/stateful.py",
        "            holding.ops.copy(copy.array, holding.array)\n",
        '            if holding.name == "params":\n'
        "                holding.ops.copy(copy.array, holding.array)\n",
        ["tests/parallel/test_local.py", "-k", "way_back"],
    ),
    (
        "pympi_train/parallel/exact.py",
        "if group == self.own_groups.start:",
        "if group == 0:",
        ["tests/parallel/test_exact.py"],
    ),
    (  # From 3 ranks on: two workers.
        "pympi_train/parallel/server/worker.py",
        "weight = weight if self._link.is_first else 0.0",
        "weight = float(weight)",
        ["tests/parallel/server/test_server.py"],
    ),
    (  # From 3 ranks on: two servers.
        "pympi_train/parallel/server/server.py",
        "norm = math.sqrt(self._over_servers(norm * norm))",
        "norm = math.sqrt(norm * norm)",
        ["tests/parallel/server/test_server.py"],
    ),
    (  # From 4 ranks on: three workers, whose order changes the last bit.
        "pympi_train/parallel/server/server.py",
        "self._roles, self._in_turn = roles, staleness == 0",
        "self._roles, self._in_turn = roles, False",
        ["tests/parallel/server/test_server.py", "-k", "in_turn"],
    ),
    (  # The last micro-batch is the second.
        "pympi_train/parallel/allreduce.py",
        "        if index > 0:\n",
        "        if index > 1:\n",
        ["tests/parallel/test_allreduce.py"],
    ),
    (
        "pympi_train/parallel/trials.py",
        'collectives.reduced(self._comm, self._history[n:], op="MAX").tolist()',
        "self._history[n:]",
        ["tests/parallel/test_trials.py"],
    ),
    (  # Only float64 may take larger steps than float32.
        "pympi_train/parallel/whole_gradient.py",
        "math.sqrt(np.finfo(t).max)",
        'math.sqrt(np.finfo("f").max)',
        ["tests/parallel/test_allreduce.py"],
    ),
]
DATA = [
    (  # From 3 ranks on: a quoted field that ends on the second.
        "pympi_train/data/formats/text/scans.py",
        "Before(inside ^ summary.flips,",
        "Before(inside | summary.flips,",
        ["tests/data/formats/test_cuts.py"],
    ),
    (
        "pympi_train/data/formats/text/scans.py",
        "if first < row <= last]",
        "if first <= row < last]",
        ["tests/data/formats/test_cuts.py"],
    ),
    (  # A line that begins with a quote.
        "pympi_train/data/formats/text/csv_scan.py",
        "inside = np.searchsorted(quotes, full) & 1",
        'inside = np.searchsorted(quotes, full, side="right") & 1',
        ["tests/data/formats/test_cuts.py"],
    ),
    (  # Line feeds in quotes, or blank lines.
        "pympi_train/data/formats/text/cuts.py",
        "n_lines += count_lines(data)\n\n\ndef require",
        "n_lines += 1\n\n\ndef require",
        ["tests/data/formats/test_csv.py"],
    ),
    (  # A rank without rows.
        "pympi_train/data/formats/text/svm.py",
        "if indices.size else (1, -1)",
        "if indices.size else (0, -1)",
        ["tests/data/formats/test_read.py"],
    ),
    (
        "pympi_train/data/formats/label_column.py",
        "        if facts[0] or text_labels:\n",
        "        if odd or text_labels:\n",
        ["tests/data/formats/test_csv.py"],
    ),
    (  # Rows that need not move, but on one rank are not in C order.
        "pympi_train/data/groups.py",
        "if old == new and all(are_plain):",
        "if old == new and source.is_plain:",
        ["tests/data/test_groups.py"],
    ),
    (
        "pympi_train/data/order.py",
        "[left - row : right - row]",
        "[: right - left]",
        ["tests/data/test_order.py"],
    ),
    (  # Windows that are announced together with others.
        "pympi_train/data/windows/read_ahead.py",
        "self._n_windows(ahead) + self._at_once",
        "self._n_windows(ahead)",
        ["tests/data/test_order_shards.py"],
    ),
    (  # Words of a rank's windows.
        "pympi_train/data/windows/sorted_windows.py",
        "(stage * self._order.n_shards + self._first + low)",
        "(stage * self._order.n_shards + low)",
        ["tests/data/test_order_shards.py"],
    ),
    (  # A rank without rows.
        "pympi_train/data/standardise.py",
        "np.add(mean, origin - common, out=mean, where=count > 0)",
        "mean += origin - common",
        ["tests/data/test_standardise.py"],
    ),
    (
        "pympi_train/data/sources/base.py",
        "        return rows + self.start\n",
        "        return rows\n",
        ["tests/data/sources/test_sources.py"],
    ),
    (  # Held-out rows before the first of a rank's rows in the file.
        "pympi_train/data/sources/mapped.py",
        "moved(self._first + kept, old, new, comm)",
        "moved(kept, old, new, comm)",
        ["tests/data/sources/test_sources.py"],
    ),
    (  # A rank whose rows all have weight 0.
        "pympi_train/data/sources/dataset.py",
        "if not any(some_weights):",
        "if not some_weight:",
        ["tests/data/sources/test_dataset.py"],
    ),
    (  # Compressed arrays in Fortran order.
        "pympi_train/data/formats/arrays/compressed.py",
        "                _skip(stream, (array.n - stop) * item_bytes)\n",
        "",
        ["tests/data/formats/test_npz.py"],
    ),
    (  # Pieces that begin before a rank's own rows.
        "pympi_train/data/formats/arrays/compressed.py",
        "at = max(first - start, 0)",
        "at = first",
        ["tests/data/formats/test_npz.py"],
    ),
    (  # Labels that are booleans on one rank only.
        "pympi_train/data/formats/label_column.py",
        "(text_labels is False or not facts[1])",
        "(text_labels is False or None not in booleans)",
        ["tests/data/formats/test_labels.py"],
    ),
    (  # Row numbers within a rank.
        "pympi_train/data/loading/suspects.py",
        "+ rows.start + first",
        "+ first",
        ["tests/data/test_load.py"],
    ),
    (  # Another column in place of a missing one.
        "pympi_train/data/loading/again.py",
        "any_names=features is None and not (is_alike and has_names == had_names),",
        "any_names=features is None,",
        ["tests/data/test_load.py"],
    ),
    (  # Local variables of a failed model, which are views of shared memory.
        "pympi_train/comm/shared.py",
        "            _clear_frames(sys.exc_info()[1])\n",
        "            pass\n",
        ["tests/train/test_soak.py"],
    ),
    (  # Environment variables that an outer launcher has set.
        "pympi_train/comm/devices.py",
        "if None in numbers or len(set(numbers)) < len(numbers):",
        "if None in numbers:",
        ["tests/comm/test_devices.py"],
    ),
    (  # Only features of float32 lose digits before they are standardised.
        "pympi_train/data/loading/again.py",
        'dtype=schema.dtype if prepared.is_plain else "float64",',
        "dtype=schema.dtype,",
        ["tests/data/test_load.py"],
    ),
]
TRAIN = [
    (  # Parameters that are compared once per epoch.
        "pympi_train/parallel/base.py",
        "if not every or self.count // every == self._checked // every:",
        "if not every or self.count % every:",
        ["tests/train/test_never_hang.py", "-k", "drift"],
    ),
    (  # Micro-batches.
        "pympi_train/parallel/synchronous.py",
        "weight += feed.weight_of(batch)",
        "weight = feed.weight_of(batch)",
        ["tests/train/test_accumulation.py"],
    ),
    (  # A second training by the same Trainer.
        "pympi_train/train/fit.py",
        "total = max(progress.total_updates, self.strategy.count + left)",
        "total = left",
        ["tests/train/test_trainer.py", "-k", "second"],
    ),
    (  # Samples with weights.
        "pympi_train/train/metrics.py",
        "weights.sum(where=is_hit, dtype=np.float64)",
        "np.count_nonzero(is_hit)",
        ["tests/train/test_metrics.py"],
    ),
    (  # Another order of summation: the last bit.
        "pympi_train/train/metrics.py",
        "zip(slots[self._first :], self._groups)",
        "zip(slots, self._groups)",
        ["tests/parallel/test_exact.py"],
    ),
    (  # A second training by the same Trainer.
        "pympi_train/train/trainer.py",
        "self.kept, self.watching = stopping.best, None",
        "self.kept, self.watching = records[-1], None",
        ["tests/train/test_stopping.py"],
    ),
    (  # Rows that are evaluated too, and move.
        "pympi_train/data/feeds/feed.py",
        "self._source = copy.copy(source)",
        "self._source = source",
        ["tests/train/test_balance.py", "-k", "evaluated"],
    ),
    (  # Groups move, and the tree does not know.
        "pympi_train/train/setup/placement.py",
        "        self._share_groups(new)\n",
        "        pass\n",
        ["tests/train/test_balance.py", "-k", "exact"],
    ),
    (  # Rows that move in the course of L-BFGS.
        "pympi_train/train/iterate.py",
        "slice(0, len(fit.train)), point",
        "slice(0, fit.train.n // trainer.comm.size), point",
        ["tests/train/test_balance.py", "-k", "lbfgs"],
    ),
    (  # A stream whose blocks need more room than before.
        "pympi_train/data/sources/mapped.py",
        "            other.reserve(other.order)\n",
        "            pass\n",
        ["tests/train/test_stream.py", "-k", "move"],
    ),
    (  # Shares beyond the bounds.
        "pympi_train/data/balanced.py",
        "    return np.clip(high * speeds, least, most)",
        "    return high * speeds",
        ["tests/data/test_balanced.py"],
    ),
    (  # A stop for a checkpoint must not end an evaluation; L-BFGS cannot repeat it.
        "pympi_train/train/fit.py",
        "lambda: self.can_be_cut and self.trainer.is_urgent",
        "lambda: self.trainer.is_urgent",
        ["tests/train/test_cut_evaluation.py"],
    ),
    (  # One rank's evaluation was ended, and the others must know.
        "pympi_train/train/metrics.py",
        "        if n_cut:\n",
        "        if n_cut == self._comm.size:\n",
        ["tests/train/test_cut_evaluation.py"],
    ),
    (  # A Trainer that is refused after its communicator was created.
        "pympi_train/train/setup/assembly.py",
        "self.everyone is not None and is_agreed(error, self.everyone):\n"
        "                self._resources.close()\n",
        "False:\n                pass\n",
        ["tests/train/test_soak.py"],
    ),
    (  # Local steps, undone in the middle of an epoch.
        "pympi_train/train/fit.py",
        "progress.undo(before + progress.batch - self.strategy.count)",
        "pass",
        ["tests/train/test_taking_part.py", "-k", "local"],
    ),
    (  # On another number of ranks.
        "pympi_train/comm/sums/feedback.py",
        '"mixing": "sum"',
        '"mixing": "mean"',
        ["tests/train/test_state.py", "-k", "lost_to_no"],
    ),
    (  # In the middle of an epoch.
        "pympi_train/train/progress.py",
        'PLAIN = ("epoch", "samples", "batch",',
        'PLAIN = ("epoch", "samples",',
        ["tests/train/test_state.py", "-k", "are_seven"],
    ),
    (  # A rank that fails while others exchange.
        "pympi_train/parallel/overlap.py",
        "view.reshape(-1)[: self.start - first] = np.nan",
        "pass",
        ["tests/train/test_taking_part.py", "-k", "overlap"],
    ),
    (
        "pympi_train/parallel/sharded/strategy.py",
        "self._grads.views.poisoned = self._error is not None",
        "self._grads.views.poisoned = False",
        ["tests/train/test_taking_part.py", "-k", "sharded"],
    ),
    (
        "pympi_train/data/feeds/group_feed.py",
        'group = np.searchsorted(self._cuts, rows, side="right")',
        "group = np.searchsorted(self._cuts, rows)",
        ["tests/parallel/test_exact.py"],
    ),
    (
        "pympi_train/parallel/free.py",
        "error=self._error,",
        "error=None,",
        ["tests/parallel/test_local.py"],
    ),
    (  # Ranks with different numbers of bytes.
        "pympi_train/runs/predictions.py",
        "offset = int(sizes[: comm.rank].sum())",
        "offset = comm.rank * len(body)",
        ["tests/runs/test_inference.py"],
    ),
    (
        "pympi_train/train/metrics.py",
        "roots = [s * (square / weight) ** 0.5",
        "roots = [(square / weight) ** 0.5",
        ["tests/train/test_metrics.py"],
    ),
    (  # Held-out rows take part in the scaling of targets.
        "pympi_train/data/loading/assemble.py",
        "fit_scaling(rows.y, keep, comm",
        "fit_scaling(rows.y, np.ones_like(keep), comm",
        ["tests/data/test_load.py"],
    ),
    (
        "pympi_train/train/setup/agreement.py",
        "kinds = (bool, int, float, str, tuple)",
        "kinds = (bool, int, float, str)",
        ["tests/train/test_trainer.py", "-k", "other_betas"],
    ),
]
OTHERS = [
    (  # Threads keep the floating-point environment of their start.
        "pympi_train/backends/threads.py",
        "elsewhere = handed_on(function)",
        "elsewhere = function",
        ["tests/backends/test_environment.py"],
    ),
    (
        "pympi_train/optim/base.py",
        "grad_scale, l2 = factor * grad_scale, factor * l2",
        "grad_scale = factor * grad_scale",
        ["tests/optim/test_base.py"],
    ),
    (
        "pympi_train/optim/base.py",
        "{name: block[place] for name, block",
        "{name: block[piece] for name, block",
        ["tests/parallel/sharded/test_sharded.py"],
    ),
    (
        "pympi_train/optim/pairs.py",
        "self.next = (self.next + 1) % (self.length + 1)",
        "self.next = (self.next + 1) % self.length",
        ["tests/optim/test_lbfgs.py"],
    ),
    (
        "pympi_train/optim/lbfgs.py",
        "return self.agree(f, slope)",
        "return f, slope",
        ["tests/optim/test_lbfgs.py"],
    ),
    (  # GELU.
        "pympi_train/layers/dense.py",
        "self._derive(delta, saved.pre)",
        "self._derive(delta, saved.output)",
        ["tests/layers/test_dense.py"],
    ),
    (  # Layers of more than a million weights.
        "pympi_train/models/mlp.py",
        "start=start + first",
        "start=start",
        ["tests/models/test_init.py"],
    ),
    (  # The beginning of a window.
        "pympi_train/models/neural_ngram.py",
        "found[:, :back, j] = self.padding",
        "found[:, :back, j] = 0",
        ["tests/models/test_neural_ngram.py"],
    ),
    (  # Sequences shorter than the context.
        "pympi_train/models/neural_ngram.py",
        "last[:, self.context - n :]",
        "last[:, :n]",
        ["tests/models/test_neural_ngram.py"],
    ),
    (  # Windows of another length, after others.
        "pympi_train/models/neural_ngram.py",
        " or w != self._shares.shape[1]",
        "",
        ["tests/models/test_neural_ngram.py"],
    ),
    (  # Held-out windows on other ranks than the first.
        "pympi_train/data/sources/tokens.py",
        "each = each + self._first",
        "each = each",
        ["tests/train/test_language.py"],
    ),
    (  # A wrong token is the last target of a window.
        "pympi_train/data/sources/tokens.py",
        "end = windows.stop * w + 1\n            for",
        "end = windows.stop * w\n            for",
        ["tests/train/test_language.py"],
    ),
    (
        "pympi_train/models/function.py",
        "        self._block[:] = 0\n",
        "",
        ["tests/models/test_function.py"],
    ),
    (  # Samples with weights.
        "pympi_train/backends/numpy/losses.py",
        "np.multiply(z, weights[block], out=z)",
        "pass",
        ["tests/backends/test_losses.py"],
    ),
    (  # With l2.
        "pympi_train/backends/numba/updates.py",
        "g = scale * grad[i] + ridge * params[i]\n            params[i], m[i], v[i]",
        "g = grad[i] + ridge * params[i]\n            params[i], m[i], v[i]",
        ["tests/backends/test_updates.py"],
    ),
    (
        "pympi_train/flat/parts.py",
        "ends.append((place.start + high - piece.start, is_weight))",
        "ends.append((high - piece.start, is_weight))",
        ["tests/flat/test_parts.py"],
    ),
    (  # Every rank prints the message.
        "pympi_train/cli/__init__.py",
        "return _complain(error, args, comm.rank == 0)",
        "return _complain(error, args, True)",
        ["tests/cli/test_refusals.py"],
    ),
    (  # Parameters that are spread over ranks.
        "pympi_train/parallel/stateful.py",
        "part[...] = tensors[name][tuple(slice(*pair) for pair in box)]",
        "part[...] = tensors[name][tuple(slice(0, b - a) for a, b in box)]",
        ["tests/train/test_start_from.py"],
    ),
    (  # Differences in one piece of several.
        "pympi_train/checkpointtools/compare.py",
        "here[1:] = np.maximum(here[1:], largest)",
        "here[1:] = largest",
        ["tests/checkpointtools/test_tools.py", "-k", "diff"],
    ),
    (  # A rank that finds nothing, beside one that does.
        "pympi_train/checkpointtools/verify.py",
        "everyones = comm.gather(findings, root=0) or []",
        "everyones = [findings]",
        ["tests/checkpointtools/test_tools.py", "-k", "verify"],
    ),
    (
        "pympi_train/checkpointtools/export.py",
        "{tensor.name: earlier.tensors[tensor.name] for tensor in layout.tensors}",
        "earlier.tensors",
        ["tests/checkpointtools/test_tools.py", "-k", "export"],
    ),
    (  # The same step fails twice.
        "pympi_train/launch/supervise.py",
        "if step == self._failed_at:",
        "if step is None and step == self._failed_at:",
        ["tests/launch/test_supervise.py"],
    ),
    (  # The shared memory of an older job of this user.
        "pympi_train/launch/leftovers.py",
        "is_new = status.st_ctime >= since_s - CLOCK_S",
        "is_new = True",
        ["tests/launch/test_launched.py"],
    ),
    (
        "pympi_train/launch/slots.py",
        "most = middle",
        "most = middle - 1",
        ["tests/launch/test_slots.py"],
    ),
    (  # After a checkpoint of this launch, --resume CHECKPOINT is an old one.
        "pympi_train/launch/training.py",
        "self.resume in (None, NEWEST) or self.newest() != self._first",
        "self.resume in (None, NEWEST)",
        ["tests/cli/test_launch.py"],
    ),
    (  # A run is refused since `pympi-train resize` looks at its lock at that moment.
        "pympi_train/runs/output.py",
        "if time.monotonic() < end_s:",
        "if time.monotonic() > end_s:",
        ["tests/runs/test_output.py"],
    ),
    (  # A library is taken for one that built it, or for its compiler.
        "pympi_train/mpi_libraries.py",
        'first = (version.rstrip("\\0").splitlines() or [""])[0].partition(",")[0]',
        "first = version",
        ["tests/test_mpi_libraries.py"],
    ),
    (  # A plugin that srun cannot load is taken: no job starts.
        "pympi_train/launch/launchers.py",
        "plugin is None or is_unloadable(_answer(program, *trial_words(plugin)))",
        "plugin is None",
        ["tests/launch/test_launchers.py"],
    ),
    (  # Ranks of Open MPI are started so that each is alone.
        "pympi_train/mpi_libraries.py",
        "if name in offered), None)",
        'if name in offered), "none")',
        ["tests/test_mpi_libraries.py"],
    ),
    (  # A line break within quotes begins a line, which SLURM could read.
        "pympi_train/slurm/quote.py",
        'return c < " " or c == "\\x7f"',
        'return c == "\\x7f"',
        ["tests/slurm/test_script.py"],
    ),
    (  # A job that was cancelled comes back.
        "pympi_train/slurm/script.py",
        '-o %T)" = RUNNING ]',
        '-o %T)" != "" ]',
        ["tests/slurm/test_script.py"],
    ),
    (  # A job without progress is requeued for ever.
        "pympi_train/slurm/script.py",
        'if [ "$restarts" -gt 0 ] &&',
        'if [ "$restarts" -gt 9999 ] &&',
        ["tests/slurm/test_script.py"],
    ),
    (  # Ranks died after their last checkpoint: the finished training goes on.
        "pympi_train/runs/recovery/resume.py",
        'return reason, about["kept"]',
        "return None",
        ["tests/runs/recovery/test_resume.py"],
    ),
    (  # A signal that a container passes on again ends a rank that loads data.
        "pympi_train/runs/recovery/signals.py",
        "if time.monotonic() - self._noted_s < ECHO_S:",
        "if False:",
        ["tests/runs/recovery/test_signals.py"],
    ),
    (  # A signal that came while data were loaded is forgotten.
        "pympi_train/runs/recovery/signals.py",
        "if self.signal:\n                request()",
        "pass",
        ["tests/runs/recovery/test_signals.py"],
    ),
]
ELASTIC = [
    (  # What lies behind the first rows of a region, fetched from another rank.
        "pympi_train/checkpoint/handover.py",
        "first = self._at + start * self.dtype.itemsize",
        "first = self._at",
        ["tests/checkpoint/test_handover.py"],
    ),
    (
        "pympi_train/flat/boxes.py",
        "if high - low > 1:",
        "if high - low > 2:",
        ["tests/flat/test_boxes.py"],
    ),
    (
        "pympi_train/runs/elastic/requests.py",
        "if number > self.job:",
        "if number > self.job + 1:",
        ["tests/cli/test_resize.py"],
    ),
    (  # A checkpoint that nobody asked for.
        "pympi_train/runs/recovery/checkpoints.py",
        "if due or reason not in (GO_ON, RESIZED):",
        "if due or reason != GO_ON:",
        ["tests/runs/elastic/test_resize.py"],
    ),
]
CHECKPOINT = [
    (  # Power is lost: data, names in a folder, the folder's name, and those above.
        "pympi_train/checkpoint/durable.py",
        "            os.fsync(file)\n        finally:",
        "        finally:",
        ["tests/checkpoint/test_crash_states.py"],
    ),
    (
        "pympi_train/checkpoint/folder.py",
        "    sync_folder(folder)\n",
        "",
        ["tests/checkpoint/test_crash_states.py"],
    ),
    (
        "pympi_train/checkpoint/durable.py",
        "        sync_folder(os.path.dirname(new))",
        "        pass",
        ["tests/checkpoint/test_crash_states.py"],
    ),
    (
        "pympi_train/checkpoint/durable.py",
        "while not os.path.ismount(parent):",
        "while False:",
        ["tests/checkpoint/test_crash_states.py"],
    ),
    (
        "pympi_train/checkpoint/store.py",
        "        sync_folder(directory)",
        "        pass",
        ["tests/checkpoint/test_crash_states.py"],
    ),
    (
        "pympi_train/checkpoint/durable.py",
        "            os.rename(new, old)",
        "            pass",
        ["tests/checkpoint/test_failing_calls.py"],
    ),
    (
        "pympi_train/checkpoint/durable.py",
        "rest = rest[n_bytes:]",
        "break",
        ["tests/checkpoint/test_failing_calls.py"],
    ),
    (
        "pympi_train/checkpoint/manifest.py",
        "if file_bytes(content) != data:",
        "if False:",
        ["tests/checkpoint/test_corruption.py"],
    ),
    (
        "pympi_train/checkpoint/read.py",
        "    if found != want:",
        "    if False:",
        ["tests/checkpointtools/test_tools.py"],
    ),
]
SURVIVE = [
    (  # A rank that was done leaves alone.
        "pympi_train/comm/watch/survivors.py",
        "if _agree(left, not is_failure):",
        "if not is_failure:",
        ["tests/comm/watch/test_survivors.py"],
    ),
    (  # A state without the notes about it.
        "pympi_train/runs/recovery/attempt.py",
        "if (self._steps, len(self._records)) == (trainer.steps, trainer.epoch):",
        "if True:",
        ["tests/runs/recovery/test_attempt.py"],
    ),
    (  # A state that a torn collective has spoilt.
        "pympi_train/runs/recovery/attempt.py",
        "if least != most:",
        "if False:",
        ["tests/runs/recovery/test_attempt.py"],
    ),
    (  # An epoch of which only the evaluation is left.
        "pympi_train/train/fit.py",
        "self._attempt(next, shares) if progress.batch < n_steps else None",
        "self._attempt(next, shares)",
        ["tests/train/test_taking_part.py"],
    ),
]
POOL_FILES = [
    (  # Jobs that are not less urgent keep their ranks.
        "pympi_train/pool/schedule.py",
        "if n_spare <= 0 or job.needs.priority > waiting.priority:",
        "if n_spare <= 0 or job.needs.priority >= waiting.priority:",
        ["tests/pool/test_schedule.py"],
    ),
    (
        "pympi_train/pool/schedule.py",
        "if needs.gpus and (gpu is None or gpu in gpus):",
        "if needs.gpus and gpu is None:",
        ["tests/pool/test_schedule.py"],
    ),
    (
        "pympi_train/pool/coordinator.py",
        "if status == FAILED and job.retries > 0:",
        "if False:",
        ["tests/pool/test_pool.py", "-k", "again"],
    ),
    (  # The rank that failed alone can work again.
        "pympi_train/pool/coordinator.py",
        '        has_failed = report["kind"] == "alone"',
        "        has_failed = False",
        ["tests/pool/test_faults.py", "-k", "raises"],
    ),
    (  # The next event would stand on the line of the torn one.
        "pympi_train/pool/events.py",
        "os.ftruncate(self._file, n_bytes)",
        "len(events)",
        ["tests/pool/test_history.py"],
    ),
    (  # A job that is torn from its ranks by the end of the pool.
        "pympi_train/pool/history.py",
        "            job.leave(time_s)\n            job.status = INTERRUPTED",
        "            job.leave(time_s)",
        ["tests/pool/test_history.py"],
    ),
    (  # The time between two sessions is no time of the pool.
        "pympi_train/pool/report/chart.py",
        "start_s = starts[stay.session] + stay.start_s - session.start_s",
        "start_s = stay.start_s - history.sessions[0].start_s",
        ["tests/pool/report/test_gantt.py"],
    ),
    (  # A finished job that has another configuration now.
        "pympi_train/pool/report/records.py",
        'if known.get("sha256", job.digest) != job.digest:',
        "if not known:",
        ["tests/cli/test_pool.py"],
    ),
    (  # A job before those that it needs.
        "pympi_train/pool/jobfile/order.py",
        "TopologicalSorter(dict(enumerate(needs)))",
        "TopologicalSorter({i: () for i in range(len(needs))})",
        ["tests/pool/jobfile/test_jobs.py"],
    ),
]
SEARCH = [
    (  # The worst trials go on.
        "pympi_train/search/rungs.py",
        "ranked = sorted((cost, trial) for trial, cost in costs.items())",
        "ranked = sorted((-cost, trial) for trial, cost in costs.items())",
        ["tests/search/test_rungs.py"],
    ),
    (  # Results of another number of epochs, or of another fold.
        "pympi_train/search/results/log.py",
        'key = tuple(record["set"]), record["fold"], record["epochs"]',
        'key = tuple(record["set"]), record["fold"], 1',
        ["tests/search/test_methods.py", "tests/search/test_resumed.py"],
    ),
    (  # What is asked depends on the number of results, not on their order alone.
        "pympi_train/search/methods.py",
        "token, work = flying.popleft()",
        "token, work = flying.pop()",
        ["tests/search/test_methods.py"],
    ),
    (  # A cosine that has reached its end does not go on.
        "pympi_train/search/plan.py",
        'rung = f"epochs-{epochs}" if self.begins_anew(c) else ""',
        'rung = ""',
        ["tests/search/test_methods.py"],
    ),
    (  # Two trials' weights in the folder of the best one.
        "pympi_train/search/run.py",
        "future = evaluation.train(config, name, resume=False)",
        "future = evaluation.train(config, name, resume=True)",
        ["tests/search/test_resumed.py"],
    ),
    (  # Rungs of lanes that drop the best.
        "pympi_train/search/by_lanes.py",
        "if number not in self._left and results[place].status == lanes.TRAINING",
        "if number in self._left and results[place].status == lanes.TRAINING",
        ["tests/search/test_by_lanes.py"],
    ),
    (  # A loss of a step without its weight.
        "pympi_train/search/lr_range.py",
        "return (losses / weights).tolist()",
        "return losses.tolist()",
        ["tests/search/test_lr_range.py"],
    ),
]
LANES = [
    (  # A batch whose training rows weigh nothing, or all belong to the lane's fold.
        "pympi_train/lanes/descend.py",
        "active = (weights > 0) & ~diverged",
        "active = ~diverged",
        ["tests/lanes/test_as_trainers.py"],
    ),
    (  # Adam's bias correction begins anew when a lane was dropped.
        "pympi_train/lanes/updates.py",
        "self.counts = other.counts[kept]",
        "self.counts = other.counts[: len(kept)] * 0",
        ["tests/lanes/test_exact_lanes.py"],
    ),
    (  # Bits that depend on the number of lanes.
        "pympi_train/lanes/columns.py",
        "self.width = -(-self.width // EXACT_WIDTH) * EXACT_WIDTH",
        "self.width = min(n_lanes, self.n_slots) * n_outputs",
        ["tests/lanes/test_exact_lanes.py", "tests/lanes/test_columns.py"],
    ),
    (  # Features that are shifted, and not scaled alone.
        "pympi_train/lanes/rescaling.py",
        "grads[:, :-1] += self._offsets * grads[:, -1:]",
        "grads[:, :-1] += 0 * self._offsets * grads[:, -1:]",
        ["tests/lanes/test_as_trainers.py"],
    ),
]
BENCH = [
    (  # An energy counter that began again at 0.
        "pympi_train/backends/energy.py",
        "self._turns += 1",
        "self._turns += 0",
        ["tests/backends/test_energy.py"],
    ),
    (  # An alarm in most comparisons of equal code.
        "pympi_train/bench/suite/compare.py",
        "tail = (1 - LEVEL) / 2 / max(1, n_judged)",
        "tail = (1 - LEVEL) / 2",
        ["tests/bench/suite/test_compare.py"],
    ),
    (  # The fastest rank's seconds instead of the slowest's.
        "pympi_train/bench/suite/timing.py",
        'slowest = reduced(comm, seconds, op="MAX").tolist()',
        'slowest = reduced(comm, seconds, op="MIN").tolist()',
        ["tests/bench/suite/test_timing.py"],
    ),
]
MODEL = [
    (  # Ranks of a node that send at the same time.
        "pympi_train/scaling/model/counts.py",
        "inner_bytes * (shared - 1), outer_bytes * shared",
        "inner_bytes * (shared - 1), outer_bytes",
        ["tests/scaling/model/test_predict.py"],
    ),
    (  # Far more ranks than draws.
        "pympi_train/scaling/model/draws.py",
        "tail = threshold + excess * np.log(TAIL / np.minimum(beyond, TAIL))",
        "tail = draws[-1]",
        ["tests/scaling/model/test_predict.py"],
    ),
]
PARTS = COMM, PARALLEL, DATA, TRAIN, ELASTIC, CHECKPOINT, SURVIVE, POOL_FILES, SEARCH
PARTS += OTHERS, LANES, MODEL, BENCH
CPU_MUTATIONS = [mutation for part in PARTS for mutation in part]
