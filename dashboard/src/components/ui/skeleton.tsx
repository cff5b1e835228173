import { cn } from "@/lib/cn";

/** Holds the place of what is loading. */
export function Skeleton({ className }: { className?: string }) {
  return <span aria-hidden className={cn("block animate-pulse rounded bg-raised", className)} />;
}
