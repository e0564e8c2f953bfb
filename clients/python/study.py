#!/usr/bin/env python3
"""A masking study over several clips: one sweep of vampd for each, one table of all, the means along every axis.

    study.py a.wav b.flac -o study --grid '{"mask.mask_ratio": [0.2, 0.5, 0.8], "seed": [1, 2, 3]}'

The folder holds everything: study.json what was asked and which sweep each clip is, tables/ a table for each clip that
is finished, table.csv all of them with the clip in front, means.csv the mean of every measure at each value of each axis.
Interrupted, the same line goes on: sweeps go on in the daemon meanwhile, also when it was restarted, and are taken up
by their names. More clips may be given later; another grid, other parameters or a clip with other contents are refused,
because one table must have one meaning. All clips share a seed, drawn at first where neither grid nor parameters have
one. One sweep at a time: its points fill the daemon already, and an interrupted study leaves little behind.

Needs vampd.py beside it, and no more. The environment's VAMPD is the daemon's address, VAMP_KEY the key.
"""
import argparse
import csv
import hashlib
import http.client
import json
import os
import random
import statistics
import sys

import vampd

SEEDS = 2 ** 53


def write(path, text):
    """Beside and renamed: who is interrupted finds the old file or the new one."""
    with open(path + ".part", "w", encoding="utf-8", newline="") as file:
        file.write(text)
    os.replace(path + ".part", path)


class Study:
    """What study.json says, and its folder."""

    def __init__(self, folder, grid, params):
        self.folder = folder
        self.path = os.path.join(folder, "study.json")
        if os.path.exists(self.path):
            with open(self.path, encoding="utf-8") as file:
                self.state = json.load(file)
            # A seed that was drawn is no news.
            asked = {**({"seed": self.state["params"]["seed"]} if self.state["drawn"] else {}), **params}
            if (list(self.state["grid"].items()), self.state["params"]) != (list(grid.items()), asked):
                raise ValueError(f"{self.path} has another grid or other params; give the study another folder")
        else:
            drawn = "seed" not in params and "seed" not in grid
            params = {**params, **({"seed": random.SystemRandom().randrange(SEEDS)} if drawn else {})}
            self.state = {"grid": grid, "params": params, "drawn": drawn, "clips": {}}

    def save(self):
        """Not before the daemon has accepted something: what it refuses is asked for again in other words."""
        os.makedirs(os.path.join(self.folder, "tables"), exist_ok=True)
        write(self.path, json.dumps(self.state, indent=1) + "\n")

    def clip(self, path):
        """The clip's entry; ValueError where it is not the file that it was."""
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        clips = self.state["clips"]
        entry = clips.setdefault(path, {"sha256": digest, "sweep": None, "number": len(clips)})
        if entry["sha256"] != digest:
            raise ValueError(f"{path} is not the file that it was when the study began")
        return entry

    def table(self, path):
        """Where the clip's table is, or will be."""
        stem = os.path.splitext(os.path.basename(path))[0]
        return os.path.join(self.folder, "tables", f"{self.state['clips'][path]['number']:03}-{stem}.csv")

    # -- work

    def finish(self, daemon, path, archive):
        """Has the clip's sweep made, or goes on with it, and keeps its table; -> whether all points are done."""
        entry = self.clip(path)
        zipped = os.path.splitext(self.table(path))[0] + ".zip"
        if os.path.exists(self.table(path)) and (os.path.exists(zipped) or not archive):
            return self.all_done(path)
        sweep = None
        if entry["sweep"]:
            try:
                sweep = daemon.get_sweep(entry["sweep"])
            except vampd.Problem as problem:
                if problem.status != 404:
                    raise
                print(f"{path}: its sweep was forgotten and is made again", file=sys.stderr)
        if sweep is None:
            sweep = daemon.create_sweep(path, params={**self.state["params"], "grid": self.state["grid"]})
            entry["sweep"] = sweep["id"]
            self.save()
        daemon.wait(sweep, lambda seen: print(f"{path}: {100 * seen['progress']:.0f} %", file=sys.stderr))
        if archive:
            daemon.sweep_archive(sweep["id"]).save(zipped)
        write(self.table(path), daemon.sweep_table(sweep["id"]).body.decode())
        return self.all_done(path)

    def all_done(self, path):
        return all(row["state"] == "done" for row in self.rows(path))

    # -- tables

    def rows(self, path):
        with open(self.table(path), encoding="utf-8", newline="") as file:
            return [{"clip": path, **row} for row in csv.DictReader(file)]

    def write_tables(self):
        """table.csv and means.csv, of the clips that are finished."""
        rows = [row for path in self.state["clips"] if os.path.exists(self.table(path)) for row in self.rows(path)]
        if rows:
            names = list(max(rows, key=len))  # a sweep of which nothing is done has no measures
            self.write_rows("table.csv", names, rows)
            measured = names[names.index("state") + 1:]
            self.write_rows("means.csv", ["axis", "value", "points", *measured], self.means(rows, measured))

    def write_rows(self, name, names, rows):
        path = os.path.join(self.folder, name)
        with open(path + ".part", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(path + ".part", path)

    def means(self, rows, measured):
        """Of all points that are done and have this value on this axis, whatever they have on the others."""
        done = [row for row in rows if row["state"] == "done"]
        for axis in ("clip", *self.state["grid"]):
            for value in dict.fromkeys(row[axis] for row in done):
                group = [row for row in done if row[axis] == value]
                known = {name: [float(row[name]) for row in group if row.get(name)] for name in measured}
                yield {"axis": axis, "value": value, "points": len(group),
                       **{name: f"{statistics.fmean(values):.6g}" for name, values in known.items() if values}}


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="study.py", description="A grid over parameters on several clips, by vampd.")
    parser.add_argument("clips", nargs="+", metavar="CLIP")
    parser.add_argument("-o", dest="output", required=True, metavar="FOLDER",
                        help="for the results; the same folder again goes on with what was begun")
    parser.add_argument("--grid", type=vampd.read_params, required=True, metavar="JSON",
                        help='{"mask.mask_ratio": [0.1, 0.5], "preset": ["subtle", "creative"]}, or @FILE')
    parser.add_argument("--params", type=vampd.read_params, default={}, metavar="JSON",
                        help='of every point: {"sampling": {"coarse_steps": 36}, "seed": 1}, or @FILE')
    parser.add_argument("--archives", action="store_true", help="keep the audio and the masks too, a zip for each clip")
    parser.add_argument("--address", help="of the daemon (VAMPD, or http://127.0.0.1:8765)")
    parser.add_argument("--patience", type=float, default=3600, metavar="S", help="to retry a busy daemon (3600)")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    try:
        study = Study(options.output, options.grid, options.params)
        for path in options.clips:
            study.clip(path)  # all files are looked at before the first hour
        daemon, failed = vampd.Vampd(options.address, patience=options.patience), []
        for path in options.clips:
            if not study.finish(daemon, path, options.archives):
                failed.append(path)
            study.write_tables()
        for path in failed:
            print(f"study.py: {path}: not all points are done; {study.table(path)} says which", file=sys.stderr)
        print(os.path.join(options.output, "table.csv"))
        return 1 if failed else 0
    except (vampd.Problem, ValueError, TypeError, OSError, http.client.HTTPException) as error:
        print(f"study.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("study.py: interrupted; the same line goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
