import { cva, type VariantProps } from "class-variance-authority";
import type { ComponentProps } from "react";
import { cn } from "@/lib/cn";

export const buttonStyle = cva(
  "inline-flex shrink-0 items-center justify-center gap-1.5 rounded-md font-medium transition-colors disabled:opacity-50",
  {
    variants: {
      variant: {
        ghost: "text-muted hover:bg-raised hover:text-text",
        solid: "bg-text text-bg hover:bg-text/85",
      },
      size: { md: "h-8 px-3", icon: "size-8", sm: "h-6 px-2 text-xs" },
    },
    defaultVariants: { variant: "ghost", size: "md" },
  },
);

type Props = ComponentProps<"button"> & VariantProps<typeof buttonStyle>;

export function Button({ variant, size, className, ...rest }: Props) {
  return (
    <button type="button" className={cn(buttonStyle({ variant, size }), className)} {...rest} />
  );
}
