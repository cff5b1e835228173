import type { Anomaly } from "@/lib/api/types";
import { cn } from "@/lib/cn";

const DOT: Record<Anomaly["severity"], string> = {
  info: "bg-accent",
  warning: "bg-warn",
  critical: "bg-down",
};
const TEXT: Record<Anomaly["severity"], string> = {
  info: "text-accent",
  warning: "text-warn",
  critical: "text-down",
};
const NAME: Record<Anomaly["severity"], string> = {
  info: "Info",
  warning: "Warning",
  critical: "Critical",
};

/** The chart's own sign of an anomaly: a diamond in the colour of its severity. */
export function SeverityDot({ severity }: { severity: Anomaly["severity"] }) {
  return <span aria-hidden className={cn("size-[7px] shrink-0 rotate-45", DOT[severity])} />;
}

export function Severity({ severity }: { severity: Anomaly["severity"] }) {
  return (
    <span className={cn("flex items-center gap-2", TEXT[severity])}>
      <SeverityDot severity={severity} />
      {NAME[severity]}
    </span>
  );
}
