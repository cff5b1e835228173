import { useCallback, useEffect, useState } from "react";

/**
 * A choice that this browser remembers. `read` makes a value of whatever was stored, or of
 * `undefined`; the first render shows its answer to that, because the page is rendered beforehand.
 */
export function usePreference<T>(
  key: string,
  read: (stored: unknown) => T,
): [T, (value: T) => void] {
  const [value, setValue] = useState<T>(() => read(undefined));
  useEffect(() => setValue(read(stored(key))), [key, read]);
  const choose = useCallback(
    (next: T) => {
      setValue(next);
      try {
        localStorage.setItem(key, JSON.stringify(next));
      } catch {
        // Storage is refused: the choice lasts as long as the page.
      }
    },
    [key],
  );
  return [value, choose];
}

function stored(key: string): unknown {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null") ?? undefined;
  } catch {
    return undefined;
  }
}
