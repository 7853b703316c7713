// What the API server says, as far as the page reads it.

export interface ChatSummary {
  chat_id: string;
  title?: string;
  created_at: string;
  updated_at: string;
  turns: number;
  branched_from?: { chat_id: string; position: number } | null;
}

export interface ChatPage {
  chats: ChatSummary[];
  next_cursor: string | null;
}

export type ServerStatus = "pending" | "complete" | "interrupted" | "failed" | "replaced";

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  cached_tokens?: number | null;
}

export interface ServerTurn {
  position: number;
  status: ServerStatus;
  user_prompt: string;
  response: string | null;
  finish_reason: string | null;
  error_code: string | null;
  usage: Usage | null;
}

export interface ChatView extends ChatSummary {
  system_prompt: string | null;
  items: ServerTurn[];
  next_cursor: string | null;
}

export interface FinalEvent {
  response: string;
  finish_reason?: string;
  usage?: Usage;
  timing?: { queue_ms: number; prefill_ms: number; decode_ms: number };
  history?: { turns_sent: number; turns_dropped: number };
}
