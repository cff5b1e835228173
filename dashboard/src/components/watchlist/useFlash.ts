import { useEffect, useRef } from "react";

const FLASH_MS = 500;

/** Tints an element for a moment when its number changes; returns the ref to put on it. */
export function useFlash<E extends HTMLElement>(value: number | null) {
  const ref = useRef<E>(null);
  const last = useRef<{ value: number | null; at: number }>({ value: null, at: 0 });
  useEffect(() => {
    const before = last.current;
    const element = ref.current;
    const now = performance.now();
    const changed = before.value !== null && value !== null && before.value !== value;
    // A busy symbol would glow without end: one flash has to end before the next.
    const due = changed && now - before.at > FLASH_MS;
    last.current = { value, at: due ? now : before.at };
    if (!due || !element || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const color = `var(--${(value as number) > (before.value as number) ? "up" : "down"})`;
    element.animate([{ color }, { color }, {}], { duration: FLASH_MS, easing: "ease-out" });
  }, [value]);
  return ref;
}
