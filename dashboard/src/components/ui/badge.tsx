import { cva, type VariantProps } from "class-variance-authority";
import type { ComponentProps } from "react";
import { cn } from "@/lib/cn";

const style = cva(
  "inline-flex h-5 shrink-0 items-center gap-1 whitespace-nowrap rounded px-1.5 font-medium text-2xs",
  {
    variants: {
      tone: {
        neutral: "bg-raised text-muted",
        up: "bg-up/12 text-up",
        down: "bg-down/12 text-down",
        warn: "bg-warn/12 text-warn",
        accent: "bg-accent/12 text-accent",
      },
    },
    defaultVariants: { tone: "neutral" },
  },
);

export type Tone = NonNullable<VariantProps<typeof style>["tone"]>;

export function Badge({ tone, className, ...rest }: ComponentProps<"span"> & { tone?: Tone }) {
  return <span className={cn(style({ tone }), className)} {...rest} />;
}
