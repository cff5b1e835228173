import { Skeleton } from "@/components/ui/skeleton";
import { cn } from "@/lib/cn";

interface Props {
  label: string;
  /** Null while it is loading. */
  value: string | null;
  testId?: string;
  tone?: string;
  title?: string;
}

/** One number under its name. */
export function Stat({ label, value, testId, tone, title }: Props) {
  return (
    <div title={title} className="min-w-0">
      <dt className="truncate text-2xs text-muted">{label}</dt>
      <dd data-testid={testId} className={cn("whitespace-nowrap font-medium text-[13px]", tone)}>
        {value ?? <Skeleton className="my-0.5 h-4 w-12" />}
      </dd>
    </div>
  );
}
