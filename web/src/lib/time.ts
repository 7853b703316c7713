// Spans of time in words.

export function spanOf(seconds: number): string {
  if (seconds < 120) return counted(Math.max(0, Math.ceil(seconds)), "second");
  if (seconds < 7200) return counted(Math.ceil(seconds / 60), "minute");
  return counted(Math.ceil(seconds / 3600), "hour");
}

function counted(count: number, unit: string): string {
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}
