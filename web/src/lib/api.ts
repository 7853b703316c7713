// The one way to the API server: adds the key, asks for one when the server wants it, and turns every failure into
// one of two errors: ApiError (the server said no) or Lost (it said nothing).

import { askForKey, key } from "./key";

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** Seconds, as the server said in Retry-After. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }

  get isBusy(): boolean {
    return this.status === 429 || this.status === 503;
  }
}

export class Lost extends Error {}

export interface Call {
  method?: string;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

export async function call(path: string, options: Call = {}): Promise<Response> {
  for (;;) {
    const used = key.value;
    const response = await send(path, options, used);
    if (response.ok) return response;
    const error = await readError(response);
    if (response.status !== 401) throw error;
    if (!(await askForKey(used ? error.message : ""))) throw error;
    options.signal?.throwIfAborted();
  }
}

export async function json<T>(path: string, options: Call = {}): Promise<T> {
  const response = await call(path, options);
  try {
    return (await response.json()) as T;
  } catch (problem) {
    if (options.signal?.aborted) throw problem;
    throw new Lost("The connection broke off");
  }
}

async function send(path: string, options: Call, secret: string): Promise<Response> {
  const headers: Record<string, string> = { ...options.headers };
  if (secret) headers.Authorization = `Bearer ${secret}`;
  const init: RequestInit = { method: options.method ?? "GET", headers, cache: "no-store" };
  if (options.body !== undefined) {
    headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(options.body);
  }
  if (options.signal) init.signal = options.signal;
  try {
    // Relative, so that the page also works below a prefix of a proxy.
    return await fetch(path, init);
  } catch (problem) {
    if (options.signal?.aborted) throw problem;
    throw new Lost("The server cannot be reached");
  }
}

async function readError(response: Response): Promise<ApiError> {
  const after = Number(response.headers.get("Retry-After") ?? NaN);
  const retryAfter = Number.isFinite(after) ? after : null;
  try {
    const { error } = (await response.json()) as { error: { code: string; message: string } };
    return new ApiError(response.status, error.code, error.message, retryAfter);
  } catch {
    // A proxy between us and the server has its own pages.
    return new ApiError(response.status, "unknown", `The server answered ${response.status}`, retryAfter);
  }
}
