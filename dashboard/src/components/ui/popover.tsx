"use client";

import { type ReactNode, useEffect, useId, useRef, useState } from "react";
import { ChevronIcon } from "./icons";

interface Props {
  label: string;
  count: number;
  children: ReactNode;
}

/** A button that opens a panel below it; Escape, or a press elsewhere, closes it. */
export function Popover({ label, count, children }: Props) {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const id = useId();

  useEffect(() => {
    if (!open) return;
    const onPress = (event: PointerEvent) => {
      if (!root.current?.contains(event.target as Node)) setOpen(false);
    };
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== "Escape") return;
      setOpen(false);
      button.current?.focus();
    };
    document.addEventListener("pointerdown", onPress);
    document.addEventListener("keydown", onKey);
    return () => {
      document.removeEventListener("pointerdown", onPress);
      document.removeEventListener("keydown", onKey);
    };
  }, [open]);

  return (
    <div ref={root} className="relative">
      <button
        ref={button}
        type="button"
        aria-label={`${label}, ${count} shown`}
        aria-expanded={open}
        aria-controls={open ? id : undefined}
        onClick={() => setOpen(!open)}
        className="flex h-[30px] items-center gap-1.5 rounded-md border border-line px-2.5 font-medium text-muted text-xs transition-colors hover:text-text aria-expanded:bg-raised aria-expanded:text-text max-lg:h-[38px]"
      >
        {label}
        {count > 0 && <span className="text-text">{count}</span>}
        <ChevronIcon />
      </button>
      {open && (
        <section
          id={id}
          aria-label={label}
          className="absolute right-0 z-30 mt-1.5 w-72 rounded-lg border border-line-strong bg-surface p-3.5 shadow-black/25 shadow-xl max-lg:right-auto max-lg:left-0"
        >
          {children}
        </section>
      )}
    </div>
  );
}
