import type { Reason } from "@/lib/api/types";

/** What a person should know when an answer is not the model's own opinion. */
export const REASONS: Record<Reason, { title: string; detail: string }> = {
  stale: {
    title: "Data is stale",
    detail: "The newest bar is too old to decide on, so the policy holds.",
  },
  gap: {
    title: "Gap in the data",
    detail: "Messages are missing in the feature window, so the policy holds.",
  },
  warming_up: { title: "Warming up", detail: "Not enough closed bars for all 11 features yet." },
  no_model: {
    title: "Rules, not a model",
    detail: "No trained policy is promoted; rules-1 decides.",
  },
  unavailable: {
    title: "Policy unavailable",
    detail: "No answer within the deadline, so it is a hold.",
  },
};

export function reasonOf(reason: string): { title: string; detail: string } {
  return (
    REASONS[reason as Reason] ?? { title: reason, detail: "The policy did not decide this itself." }
  );
}
