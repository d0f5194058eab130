# SPDX-License-Identifier: GPL-2.0-only
"""A small runner for PHP's .phpt files: phpt.py HOST:PORT LEAVE-OUT… -- FILE…

Skipped are files whose SKIPIF part prints `skip`, and those that need another server.
"""

import os
import re
import subprocess
import sys

PLACEHOLDERS = {
    "%s": r"[^\r\n]+", "%S": r"[^\r\n]*", "%a": r".+", "%A": r".*", "%w": r"\s*",
    "%i": r"[+-]?\d+", "%d": r"\d+", "%x": r"[0-9a-fA-F]+", "%c": r".", "%e": "/",
    "%f": r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?",
}


def sections(text):
    parts = re.split(r"^--([A-Z_]+)--\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def php(code, name, ini):
    path = f"./{name}.php"
    with open(path, "w") as f:
        f.write(code)
    options = [f"-d{line.replace(' ', '')}" for line in ini.splitlines() if "=" in line]
    try:
        out = subprocess.run(["php", *options, path], capture_output=True, timeout=60)
        return out.stdout.decode(errors="replace").strip().replace("\r\n", "\n")
    finally:
        os.unlink(path)


def pattern(expected):
    out = re.escape(expected)
    for key, value in PLACEHOLDERS.items():
        out = out.replace(re.escape(key), value)
    return out


passed, skipped, failed = 0, 0, []
split = sys.argv.index("--")
for path in sys.argv[split + 1 :]:
    if os.path.basename(path)[:-5] in sys.argv[2:split]:
        skipped += 1
        continue
    with open(path) as f:
        s = sections(f.read())
    name = os.path.basename(path)[:-5]
    ini = s.get("INI", "")
    if "SKIPIF" in s and php(s["SKIPIF"], name + "-skip", ini).lower().startswith("skip"):
        skipped += 1
        continue
    if "FILE" not in s or "REDIRECTTEST" in s or "11212" in s["FILE"] or "11211" in s["FILE"]:
        skipped += 1
        continue
    got = php(s["FILE"], name, ini)
    if "EXPECT" in s:
        good = got == s["EXPECT"].strip()
    else:
        good = re.fullmatch(pattern(s.get("EXPECTF", s.get("EXPECTREGEX", "")).strip()), got, re.S)
    if good:
        passed += 1
    else:
        failed.append(name)
        print(f"FAIL {name}: {got[:300]}")
print(f"phpt: {passed} passed, {len(failed)} failed, {skipped} skipped")
sys.exit(bool(failed))
