import type { ReactNode } from "react";
import { cn } from "@/lib/cn";

interface Props {
  title: string;
  aside?: ReactNode;
  className?: string;
  children: ReactNode;
}

/** A titled region of the terminal. */
export function Panel({ title, aside, className, children }: Props) {
  return (
    <section aria-label={title} className={cn("bg-surface px-4 py-3", className)}>
      <div className="mb-2 flex h-5 items-center justify-between gap-2">
        <h2 className="font-medium text-muted text-xs">{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  );
}

/** A label and its value on one line. */
export function Row({
  label,
  children,
  title,
}: {
  label: string;
  children: ReactNode;
  title?: string;
}) {
  return (
    <div className="flex items-baseline justify-between gap-3 py-[3px]" title={title}>
      <dt className="truncate text-muted text-xs">{label}</dt>
      <dd className="whitespace-nowrap text-xs">{children}</dd>
    </div>
  );
}
