// Builds the page into api/page/ (or the folder that is named): index.html and assets/ whose names hold their hash.
// The same sources and lock file give the same bytes anywhere; `make check-page` holds the repository to that.

import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.resolve(process.argv[2] ?? path.join(here, "..", "api", "page"));
const assets = path.join(out, "assets");

const common = {
  absWorkingDir: here,
  outdir: assets,
  bundle: true,
  minify: true,
  metafile: true,
  target: ["es2022", "chrome123", "firefox120", "safari17.5"],
  legalComments: "none",
  charset: "utf8",
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  loader: { ".woff2": "file", ".svg": "file" },
  logLevel: "warning",
};

await rm(out, { recursive: true, force: true });
await mkdir(assets, { recursive: true });
const page = await build({ ...common, entryPoints: ["src/main.tsx"], format: "esm", splitting: true });
// Runs before the first paint, so that a chosen theme does not flash in the other one.
const theme = await build({ ...common, entryPoints: ["src/theme.ts"], format: "iife" });
const icon = await build({ ...common, entryPoints: ["src/icon.svg"], loader: { ".svg": "copy" } });

function named(result, extension) {
  const found = Object.keys(result.metafile.outputs).find((file) => {
    const name = path.basename(file);
    return /^(main|theme|icon)-/.test(name) && name.endsWith(extension);
  });
  if (!found) throw new Error(`the build made no ${extension}`);
  return `page/${path.basename(found)}`;
}

const names = {
  "%SCRIPT%": named(page, ".js"),
  "%STYLE%": named(page, ".css"),
  "%THEME%": named(theme, ".js"),
  "%ICON%": named(icon, ".svg"),
};
let html = await readFile(path.join(here, "src", "index.html"), "utf8");
for (const [mark, name] of Object.entries(names)) html = html.replaceAll(mark, name);
await writeFile(path.join(out, "index.html"), html);
await writeFile(path.join(out, "licenses.txt"), await licenses());

/** What the licences of the bundled packages ask to be handed on with them. */
async function licenses() {
  const manifest = JSON.parse(await readFile(path.join(here, "package.json"), "utf8"));
  const lock = JSON.parse(await readFile(path.join(here, "package-lock.json"), "utf8"));
  const parts = ["The chat page holds these packages.\n"];
  const seen = new Set();
  const queue = Object.keys(manifest.dependencies).sort();
  for (const name of queue) {
    const entry = lock.packages[`node_modules/${name}`];
    if (seen.has(name) || !entry) continue;
    seen.add(name);
    queue.push(...Object.keys(entry.dependencies ?? {}).sort());
    const folder = path.join(here, "node_modules", name);
    const file = (await readdir(folder)).sort().find((one) => /^licen[cs]e/i.test(one));
    const text = file ? await readFile(path.join(folder, file), "utf8") : `${entry.license}\n`;
    parts.push(`${"=".repeat(80)}\n${name} ${entry.version} (${entry.license})\n\n${text.trim()}\n`);
  }
  return parts.join("\n");
}
